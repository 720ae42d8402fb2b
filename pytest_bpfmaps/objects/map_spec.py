"""A map of an object that is opened and not loaded yet."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pytest_bpfmaps.btf.codec import short
from pytest_bpfmaps.errors import (
    LoadError,
    MapTypeError,
    MapValueError,
    NameLookupError,
    UnsupportedError,
    closest,
)
from pytest_bpfmaps.libbpf import check, ffi, lib, to_str, version
from pytest_bpfmaps.maps import Map, MapType
from pytest_bpfmaps.maps.declared_types import declared_types
from pytest_bpfmaps.maps.families.arena import ArenaMap
from pytest_bpfmaps.maps.info import untyped_info

SETTINGS = (
    *("type", "key_size", "value_size", "max_entries", "flags", "map_extra", "numa_node", "ifindex"),
    *("autocreate", "pin_path"),
)
"""What `MapSpec.configure`, and so ``bpf.load(maps=…)``, can set."""


_RESIZES_SECTIONS = (1, 3)  # version of libbpf; an older one would read past the end of the section


class MapSpec:
    """A map of an object that is opened and not loaded yet."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.declared = declared_types(handle)
        self.refused_sizes = _refused_sizes(handle)
        self.changed: dict[str, int] = {}  # what was set, by libbpf's names
        self.inner: Map | None = None
        self.reused: Map | None = None
        self.name = to_str(lib.bpf_map__name(handle))

    @property
    def type(self) -> MapType | int:
        """Its ``enum bpf_map_type``; can be set, by number or name (``"lru_hash"``)."""
        return MapType.from_number(lib.bpf_map__type(self.handle))

    @type.setter
    def type(self, wanted: MapType | int | str) -> None:
        number = MapType.from_name(wanted) if isinstance(wanted, str) else wanted
        if number is None:
            raise NameLookupError("no map type", on=repr(wanted), fix=closest(str(wanted), map(str, MapType)))
        self._set("type", number)

    def set_inner_map(self, live: Map) -> None:
        """Gives the inner maps of this map of maps the type and sizes of `live`.

        `live` itself is not put into the map. Raises `LoadError` for a map that is not a map of maps, or that
        declares its inner map in C.
        """
        check(
            lib.bpf_map__set_inner_map_fd(self.handle, live.fd),
            LoadError,
            f"cannot take {live} as the inner map",
            on=f"of {self}",
            fix="give it to a map of maps that declares no inner map itself",
        )
        self.inner = live
        self.declared = replace(self.declared, inner=untyped_info(live.fd))

    @property
    def max_entries(self) -> int:
        """How many elements it will hold; can be set. For a ring buffer it is the size in bytes."""
        return int(lib.bpf_map__max_entries(self.handle))

    @max_entries.setter
    def max_entries(self, count: int) -> None:
        self._set("max_entries", count)

    @property
    def key_size(self) -> int:
        """Bytes of a key; can be set. A key whose declared type has another size is `bytes` in Python."""
        return int(lib.bpf_map__key_size(self.handle))

    @key_size.setter
    def key_size(self, size: int) -> None:
        self._set("key_size", size)

    @property
    def value_size(self) -> int:
        """Bytes of a value; can be set, as `key_size`. A stack trace map has 8 bytes for each frame."""
        return int(lib.bpf_map__value_size(self.handle))

    @value_size.setter
    def value_size(self, size: int) -> None:
        if lib.bpf_map__is_internal(self.handle) and version() < _RESIZES_SECTIONS:
            raise UnsupportedError(
                f"cannot set value_size={size}",
                on=f"of {self}",
                why="libbpf {}.{}".format(*version()) + " can't resize a data section",
                fix="use libbpf 1.3 or later, or make the array in the source larger",
                errno=errno.EOPNOTSUPP,
            )
        self._set("value_size", size)

    @property
    def flags(self) -> int:
        """``BPF_F_*``; can be set."""
        return int(lib.bpf_map__map_flags(self.handle))

    @flags.setter
    def flags(self, flags: int) -> None:
        self._set("map_flags", flags)

    @property
    def map_extra(self) -> int:
        """An extra number for some types, such as a bloom filter's count of hash functions; can be set.

        Linux 5.16, commit 9330986c0300.
        """
        return int(lib.bpf_map__map_extra(self.handle))

    @map_extra.setter
    def map_extra(self, extra: int) -> None:
        self._set("map_extra", extra)

    @property
    def numa_node(self) -> int:
        """The NUMA node whose memory it uses; can be set. It needs ``BPF_F_NUMA_NODE`` in `flags`."""
        return int(lib.bpf_map__numa_node(self.handle))

    @numa_node.setter
    def numa_node(self, node: int) -> None:
        self._set("numa_node", node)

    @property
    def ifindex(self) -> int:
        """The index of the interface whose hardware holds it (offload), 0 for none; can be set."""
        return int(lib.bpf_map__ifindex(self.handle))

    @ifindex.setter
    def ifindex(self, index: int) -> None:
        self._set("ifindex", index)

    @property
    def autocreate(self) -> bool:
        """Whether loading the object creates it; can be set."""
        return bool(lib.bpf_map__autocreate(self.handle))

    @autocreate.setter
    def autocreate(self, wanted: bool) -> None:
        self._set("autocreate", wanted)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Sets attributes by name: ``{"type": "lru_hash", "key_size": 8}``.

        Raises `NameLookupError` for an unknown name, and `LoadError` for a value that libbpf refuses.
        """
        for name, value in settings.items():
            if name not in SETTINGS:
                raise NameLookupError("no setting", on=f"{name!r} of {self}", fix=closest(name, SETTINGS))
            setattr(self, name, value)

    @property
    def pin_path(self) -> str | None:
        """Where the load pins the map, or opens it if it is pinned there already; can be set.

        None means that the map is not pinned.
        """
        return to_str(lib.bpf_map__pin_path(self.handle)) or None

    @pin_path.setter
    def pin_path(self, path: str | os.PathLike[str] | None) -> None:
        lib.bpf_map__set_pin_path(self.handle, ffi.NULL if path is None else os.fsencode(path))

    def reuse(self, live: Map) -> None:
        """Uses a live map in place of a new one; type and sizes must agree.

        The loaded object has it under the name that the source gives the map.
        """
        if not isinstance(live, Map):
            raise MapTypeError(
                "cannot reuse",
                on=f"{short(live)} as {self}",
                why=f"it is {type(live).__name__}, not a map",
                fix="give a live map: obj.maps.NAME, bpf.pinned(PATH), bpf.map_by_id(ID), …",
            )
        mine = (self.type, lib.bpf_map__key_size(self.handle), lib.bpf_map__value_size(self.handle))
        theirs = (live.type, live.key_size, live.value_size)
        if mine != theirs:
            names = ("type", "key_size", "value_size")
            pairs = zip(names, mine, theirs, strict=True)
            raise LoadError(
                f"cannot reuse {live}",
                on=f"as {self}",
                why=", ".join(f"{n} is {b}, not {a}" for n, a, b in pairs if a != b),
                fix="give a map that is declared as the program's is, or change that: bpf.load(…, maps=…)",
                errno=errno.EINVAL,
            )
        if isinstance(live, ArenaMap):
            live.memory  # noqa: B018  maps it: the verifier needs its address
        check(lib.bpf_map__reuse_fd(self.handle, live.fd), LoadError, f"cannot reuse {live}", on=f"as {self}")
        self.reused = live

    def _set(self, name: str, value: int) -> None:
        """Calls libbpf's setter of that name."""
        what, on = f"cannot set {name}={value}", f"of {self}"
        try:
            result = getattr(lib, f"bpf_map__set_{name}")(self.handle, value)
        except (OverflowError, TypeError) as e:
            raise MapValueError(what, on=on, why=str(e), fix="give a number that fits into the field") from e
        check(result, LoadError, what, on=on)
        self.changed[name] = value

    def set_as(self, other: MapSpec) -> None:
        """Sets all that was set of another object's map of the same source."""
        for name, value in other.changed.items():
            self._set(name, value)
        self.pin_path = other.pin_path
        if other.inner is not None:
            self.set_inner_map(other.inner)
        if other.reused is not None:
            self.reuse(other.reused)

    def __str__(self) -> str:
        return f"map {self.name!r} ({self.type})"

    __repr__ = __str__


# the sizes of key and value that the kernel requires of a buffer; the type of its records does not matter
_BUFFER_SIZES = {
    MapType.RINGBUF: (0, 0),
    MapType.USER_RINGBUF: (0, 0),
    MapType.PERF_EVENT_ARRAY: (4, 4),
}


def _refused_sizes(handle: Any) -> list[str]:
    """Gives a buffer the sizes that the kernel requires; returns what it declares instead.

    libbpf would pass the declared sizes to the kernel, which refuses them.
    """
    wanted = _BUFFER_SIZES.get(lib.bpf_map__type(handle))
    if wanted is None:
        return []
    declared = (lib.bpf_map__key_size(handle), lib.bpf_map__value_size(handle))
    lib.bpf_map__set_key_size(handle, wanted[0])
    lib.bpf_map__set_value_size(handle, wanted[1])
    pairs = zip(("key", "value"), declared, wanted, strict=True)
    return [
        f"a {part} of {is_} bytes" if is_ else f"no {part}_size" for part, is_, wants in pairs if is_ != wants
    ]
