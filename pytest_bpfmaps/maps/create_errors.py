"""Finds the attribute of a map that the kernel refuses, because the kernel only says `EINVAL`.

First the known rules of each map type are checked. Then the map is created again with one attribute changed
at a time: the attribute whose change helps is the wrong one.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pytest_bpfmaps.errors import ENOTSUPP, Explanation
from pytest_bpfmaps.kernel.bpf_types import OF_MAPS, MapType
from pytest_bpfmaps.kernel.feature_releases import since
from pytest_bpfmaps.kernel.features import probe
from pytest_bpfmaps.kernel.privileges import refusal_hint
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, opts
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.type_rules import ANY, MMAPABLE, NO_PREALLOC, shape_of

# struct bpf_cgroup_storage_key has 12 bytes, and 4 of padding
_LARGER_KEYS = ((MapType.CGROUP_STORAGE, 16), (MapType.PERCPU_CGROUP_STORAGE, 16))
_PREFIX = 4  # bytes of a trie's key in front of the data
_BUFFERS = (MapType.RINGBUF, MapType.USER_RINGBUF)
_NEW_FLAGS = {1 << 19: "BPF_F_RB_OVERWRITE, Linux 6.19"}
_NUMA_NODE = 1 << 2
_EXCLUDING = {
    1 << 3 | 1 << 4: "BPF_F_RDONLY and BPF_F_WRONLY",
    1 << 7 | 1 << 8: "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG",
}
_EXTRA = {
    MapType.BLOOM_FILTER: "it is the number of hash functions, 1 to 15; 0 for 5 of them",
    MapType.ARENA: "it is the address at which it is mapped, a multiple of the size of a page; 0 for any",
}
_FLAG_NAMES = {NO_PREALLOC: "BPF_F_NO_PREALLOC", MMAPABLE: "BPF_F_MMAPABLE"}


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a map is created with; sizes in bytes."""

    type: MapType | int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    map_extra: int = 0
    inner_fd: int = 0  # model of the inner maps; 0 if there is none, -1 if it has no descriptor
    typed: bool = True  # whether key and value have types, if that is known

    def __str__(self) -> str:
        return (
            f"key_size={self.key_size}, value_size={self.value_size}, max_entries={self.max_entries}, "
            f"map_flags={self.map_flags:#x}"
        )


_PER_CPU = frozenset({MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH})
_PER_CPU_MOST = 32 << 10  # bytes, PCPU_MIN_UNIT_SIZE
_LONGEST_KEY = 512  # bytes, for hashes in kernels that copy the key to the stack
_MUCH = 1 << 22  # bytes; no kernel refuses a smaller map for its size


EMPTY = "it has to be at least 1: __uint(max_entries, …) in C, max_entries= of bpf.create_map"


def explain_refused_map(wanted: Attributes, number: int) -> Explanation:
    """Explains why the kernel, or libbpf, refused a map; `number` is a positive error number."""
    if number in (errno.EPERM, errno.EACCES):
        return _memory_limit(wanted) or Explanation(reason(number), refusal_hint())
    if not isinstance(wanted.type, MapType):
        return Explanation(f"{reason(number)}: maps of type {wanted.type} are not known here", None)
    missing = _no_type(wanted.type)
    if missing:
        return missing
    if number == errno.E2BIG and wanted.type in _PER_CPU and wanted.value_size > _PER_CPU_MOST:
        return Explanation(
            f"its values have {wanted.value_size} bytes, but a per-CPU map's have at most {_PER_CPU_MOST}",
            "make the value smaller, or divide it among several elements",
        )
    if number == errno.E2BIG and wanted.type == MapType.CPUMAP:
        return Explanation(
            f"it is for {wanted.max_entries} CPUs, but this kernel is built for fewer",
            "give max_entries= the number of CPUs of the machine, os.cpu_count(), or 64",
        )
    if number in (errno.E2BIG, errno.ENOMEM):
        each = wanted.key_size + wanted.value_size
        total = each * wanted.max_entries
        if number == errno.E2BIG and wanted.key_size > _LONGEST_KEY and total < _MUCH:
            return Explanation(
                f"its keys have {wanted.key_size} bytes, but this kernel allows at most {_LONGEST_KEY}, "
                "as much as a program's stack",
                "make the key shorter: use a hash of the long part, or a piece of it",
            )
        return Explanation(
            f"{reason(number)}: {wanted.max_entries} elements (max_entries) of {each} bytes "
            f"are {total} bytes",
            "make fewer or smaller elements",
        )
    if number not in (errno.EINVAL, ENOTSUPP):  # LRU hashes give ENOTSUPP for BPF_F_NO_PREALLOC
        return Explanation(f"{reason(number)}, for {wanted}", None)
    known = _broken_rule(wanted, wanted.type) or _excluding_flags(wanted)
    if known:
        return known
    return _by_trying(wanted, wanted.type) or Explanation(f"{reason(number)}, for {wanted}", None)


def _memory_limit(wanted: Attributes) -> Explanation | None:
    """Explains that the map exceeds the limit of locked memory; None if that is not the cause.

    Before Linux 5.11 (commit 97306be45fbe) maps count as a user's locked memory.
    """
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY or probe("helper", "bpf_ktime_get_coarse_ns"):
        return None
    size = (wanted.key_size + wanted.value_size) * wanted.max_entries
    return Explanation(
        f"{reason(errno.EPERM)}: its {size} bytes and this user's other maps exceed the limit of locked "
        f"memory, {limit} bytes (Linux {release()} counts maps as locked memory, 5.11 and later do not)",
        "raise it with 'ulimit -l unlimited', or run with CAP_SYS_RESOURCE, with which libbpf raises it",
    )


def _no_type(type: MapType) -> Explanation | None:
    if probe("map_type", str(type)):
        return None
    first = since(f"map type {type}")
    return Explanation(
        f"Linux {release()} has no maps of type {type}" + (f", they came with {first}" if first else ""),
        f'mark the test bpf_requires("{type}")',
    )


def _broken_rule(wanted: Attributes, type: MapType) -> Explanation | None:
    shape = shape_of(type)
    if shape.key not in (ANY, wanted.key_size) and (type, wanted.key_size) not in _LARGER_KEYS:
        return _at_fault("key_size", wanted.key_size, f"maps of type {type} have keys of {shape.key} bytes")
    for name, size, wants in (
        ("key", wanted.key_size, shape.key),
        ("value", wanted.value_size, shape.value),
    ):
        if size == 0 and wants == ANY:
            return Explanation(
                f"it has no {name}", f"declare one: __type({name}, …) in C, {name}='u64' of bpf.create_map"
            )
    if type in OF_MAPS and not wanted.inner_fd:
        return Explanation(
            "a map of maps needs the type and the sizes of its inner maps",
            "declare them, __array(values, struct { … }), or give a live map: "
            "opened.maps.NAME.set_inner_map(bpf.create_map(…))",
        )
    if type in _BUFFERS:
        size, page = wanted.max_entries, mmap.PAGESIZE
        if size == 0 or size & (size - 1) or size % page:
            rule = f"it is the buffer's size in bytes: a power of 2, and a multiple of {page}"
            return _at_fault("max_entries", size, rule)
    elif type == MapType.LPM_TRIE and not _PREFIX < wanted.key_size <= _PREFIX + 256:
        rule = "a key begins with '__u32 prefixlen;', and 1 to 256 bytes of data follow"
        return _at_fault("key_size", wanted.key_size, rule)
    elif not shape.entries and wanted.max_entries:
        return _at_fault("max_entries", wanted.max_entries, f"maps of type {type} have none: leave it out")
    elif shape.entries and not wanted.max_entries:
        return _at_fault("max_entries", 0, EMPTY)
    elif shape.key_type and not shape.entries and not wanted.typed:
        return Explanation(
            f"maps of type {type} need types for key and value",
            "declare them, __type(key, int); __type(value, …), in place of __uint(key_size, …) and "
            "__uint(value_size, …); or give bpf.create_map value='u64', or a struct",
        )
    if shape.flags & ~wanted.map_flags:
        name = _FLAG_NAMES[shape.flags]
        return _at_fault(
            "map_flags", f"{wanted.map_flags:#x}", f"maps of type {type} need __uint(map_flags, {name})"
        )
    return None


def _excluding_flags(wanted: Attributes) -> Explanation | None:
    """Explains that two flags exclude each other: read-only and write-only; None if they do not."""
    for flags, names in _EXCLUDING.items():
        if wanted.map_flags & flags == flags:
            return _at_fault("map_flags", f"{wanted.map_flags:#x}", f"use one of {names}, or none of them")
    return None


def _by_trying(wanted: Attributes, type: MapType) -> Explanation | None:
    for name, better in _changes(wanted, type):
        if better != wanted and _can_create(better):
            rules = {
                "key_size": f"it takes {better.key_size}, for example",
                "value_size": f"it takes {better.value_size}, for example",
                "map_extra": _EXTRA.get(type, "maps of this type have none: leave it out"),
                "max_entries": f"it takes {better.max_entries}, for example",
                "map_flags": f"without {_flags(wanted.map_flags & ~better.map_flags)} it can be created: "
                "those flags are not for this type, or are newer than this kernel",
            }
            if wanted.map_flags & ~better.map_flags == _NUMA_NODE:
                rules["map_flags"] = (
                    "without BPF_F_NUMA_NODE (0x4) it can be created: this machine has no node with the "
                    "number in numa_node, or maps of this type have no node; leave both out"
                )
            value = f"{wanted.map_flags:#x}" if name == "map_flags" else getattr(wanted, name)
            return _at_fault(name, value, rules[name])
    return None


def _flags(flags: int) -> str:
    name = f" ({_NEW_FLAGS[flags]})" if flags in _NEW_FLAGS else ""
    return f"{flags:#x}{name}"


def _changes(wanted: Attributes, type: MapType) -> Iterator[tuple[str, Attributes]]:
    shape = shape_of(type)
    for bit in range(32):
        if wanted.map_flags >> bit & 1 and not shape.flags >> bit & 1:
            yield "map_flags", replace(wanted, map_flags=wanted.map_flags & ~(1 << bit))
    yield "map_flags", replace(wanted, map_flags=shape.flags)
    yield "map_extra", replace(wanted, map_extra=0)
    yield "key_size", replace(wanted, key_size=8 if shape.key == ANY else shape.key)
    yield "value_size", replace(wanted, value_size=8 if shape.value == ANY else shape.value)
    yield "max_entries", replace(wanted, max_entries=1)


def _can_create(wanted: Attributes) -> bool:
    sizes = (wanted.key_size, wanted.value_size, wanted.max_entries)
    settings = opts(
        "bpf_map_create_opts",
        map_flags=wanted.map_flags,
        map_extra=wanted.map_extra,
        inner_map_fd=max(wanted.inner_fd, 0),
    )
    with capture_log():
        fd = lib.bpf_map_create(wanted.type, ffi.NULL, *sizes, settings)
    if fd < 0:
        return False
    os.close(fd)
    return True


def _at_fault(name: str, value: object, rule: str) -> Explanation:
    return Explanation(f"the kernel refuses {name}={value}", rule)
