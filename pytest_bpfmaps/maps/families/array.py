"""Arrays: every index always has a value."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Sequence
from typing import Any, cast

from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.maps.elements import Elements, read_mapped
from pytest_bpfmaps.maps.families.hash import HashMap
from pytest_bpfmaps.maps.type_rules import MMAPABLE


class ArrayMap(HashMap, types=(MapType.ARRAY,)):
    """``BPF_MAP_TYPE_ARRAY``: keys from 0 to `max_entries` - 1. It equals a list of its values, too."""

    def __len__(self) -> int:
        return self.max_entries

    def keys(self) -> KeysView[Any]:
        """Returns its indices."""
        if type(self._key) is not IntCodec or self.max_entries - 1 > self._key.maximum:
            return super().keys()
        self.fd  # noqa: B018 - raises if the map is closed
        return KeysView(cast(Any, range(self.max_entries)))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys())

    def clear(self) -> None:
        """Sets all elements to zero; an array's elements can't be deleted."""
        zero = bytes(self._value_bytes)
        for index in range(self.max_entries):
            self._write_raw(index, zero)

    def _write_raw(self, index: int, value: bytes) -> None:
        from pytest_bpfmaps.libbpf import ffi, lib

        key = self._encode_key(index)
        result = lib.bpf_map_update_elem(self.fd, ffi.from_buffer(key), ffi.from_buffer(value), 0)
        if result < 0:
            self._refuse(-result, "clear", index)

    def _read_memory(self) -> Elements | None:
        return read_mapped(self.fd, self.max_entries, self.value_size) if self.flags & MMAPABLE else None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return super().__eq__(dict(enumerate(other)))
        return super().__eq__(other)

    __hash__ = HashMap.__hash__

    def _explain_missing(self, key: Any) -> tuple[str | None, str | None]:
        return None, f"its indices go from 0 to {self.max_entries - 1}"
