"""Maps of maps."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import Any, NoReturn
from weakref import WeakSet

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.errors import MapTypeError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.classes import make_map, open_map_id
from pytest_bpfmaps.maps.info import MapInfo, map_info
from pytest_bpfmaps.maps.references import ReferenceMap

_COMPARED = ("type", "key_size", "value_size", "flags", "max_entries")
_BPF_F_INNER_MAP = 1 << 12


class MapOfMaps(ReferenceMap, types=(MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)):
    """``BPF_MAP_TYPE_ARRAY_OF_MAPS`` and ``BPF_MAP_TYPE_HASH_OF_MAPS``.

    Linux 4.12, commits 56f668dfe00d and bcc6b1b7ebf8; https://docs.kernel.org/bpf/map_of_maps.html.
    ``outer[k] = inner``; ``outer[k]`` opens the inner map by its id. The inner map is closed with the outer
    map, when it is no longer referenced, or by its own `close`. A map of maps equals a mapping of maps, or of
    mappings with the same elements. All inner maps have the same type and sizes, which are fixed before the
    load.
    """

    wanted = "a BPF map"
    kind = "bpf-map"

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        self._opened: WeakSet[Map] = WeakSet()
        super().__init__(fd, info, codecs, **options)

    def close(self) -> None:
        """Closes the map, and the inner maps that were opened through it. Safe to call again."""
        for each in list(self._opened):
            each.close()
        super().close()

    def _decode_value(self, raw: bytes | bytearray | memoryview) -> Any:
        return self._open(self._value.decode(raw))

    def _open(self, map_id: int) -> Map:
        fd = open_map_id(map_id)
        try:
            info, codecs = self._with_types(map_info(fd))
            made = make_map(fd, info, codecs)
        except BaseException:
            os.close(fd)
            raise
        self._opened.add(made)
        return made

    def _with_types(self, info: MapInfo) -> tuple[MapInfo, Codecs | None]:
        """Returns an inner map's types: from the kernel, or else as the outer map declares them."""
        from pytest_bpfmaps.kernel.btf import load_codecs

        if info.btf_id and (info.btf_key_type_id or info.btf_value_type_id):
            return info, load_codecs(info.btf_id)
        declared = self._info.inner
        if declared is None or (declared.type, declared.key_size, declared.value_size) != (
            info.type,
            info.key_size,
            info.value_size,
        ):
            return info, None
        key, value = declared.btf_key_type_id, declared.btf_value_type_id
        return replace(info, btf_key_type_id=key, btf_value_type_id=value), self._codecs

    def _same(self, mine: Any, wanted: Any) -> bool:
        return bool(mine.id == wanted.id if isinstance(wanted, Map) else mine == wanted)

    def _refuse_value(self, number: int, key: Any, value: Any, fd: int, flags: int) -> NoReturn:
        template = self._template()
        if (
            number == errno.EINVAL
            and template is not None
            and self.kind in os.readlink(f"/proc/self/fd/{fd}")
        ):
            differences = _differences(template, map_info(fd))
            if differences:
                raise MapTypeError(
                    f"cannot put {value!r}",
                    on=f"into {self} at {key!r}",
                    why=f"its inner maps are of another kind: {differences} ({reason(number)})",
                    fix="give a map with the attributes that the outer map declares for its inner maps",
                    errno=number,
                )
        super()._refuse_value(number, key, value, fd, flags)

    def _template(self) -> MapInfo | None:
        """Returns the attributes of inner maps: as declared, or else those of a map that is in it."""
        if self._info.inner is not None:
            return self._info.inner
        for _, raw in self._raw_items():
            inner = self._open(self._value.decode(raw))
            try:
                return map_info(inner.fd)
            finally:
                inner.close()
        return None


def _differences(wanted: MapInfo, given: MapInfo) -> str:
    """Returns the attributes that differ, as text."""
    names = list(_COMPARED)
    if wanted.type != MapType.ARRAY or wanted.flags & _BPF_F_INNER_MAP:
        # these may differ since Linux 5.10, commits 134fede4eecf and 4a8f87e60f6d
        names.remove("max_entries")
    pairs = ((n, getattr(wanted, n), getattr(given, n)) for n in names)
    return ", ".join(f"{n} is {b}, not {a}" for n, a, b in pairs if a != b)
