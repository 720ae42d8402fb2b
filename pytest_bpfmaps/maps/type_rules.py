"""The rules of each map type for its key, value, number of elements and flags."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_bpfmaps.kernel.bpf_types import MapType

NO_PREALLOC, MMAPABLE = 1 << 0, 1 << 10
ANY = -1
"""Any size; it has to be given."""


@dataclass(frozen=True, slots=True)
class TypeRules:
    """The rules of a map type; `key` and `value` are the only possible sizes in bytes, 0 for none, or `ANY`.

    `flags` are flags that the kernel requires. `entries` is False if max_entries must be 0. `records` says
    that a value is the type of the records, which only this package uses. `key_type` is the key's type if
    only the value is given with a type, because the kernel takes types for both or for none.
    """

    key: int = ANY
    value: int = ANY
    entries: bool = True
    flags: int = 0
    records: bool = False
    key_type: str | None = None


_REFERENCES = TypeRules(key=4, value=4)
_STORAGE = TypeRules(key=4, key_type="int", entries=False, flags=NO_PREALLOC)
_QUEUE = TypeRules(key=0)

_SHAPES: dict[int, TypeRules] = {
    MapType.ARRAY: TypeRules(key=4, key_type="u32"),
    MapType.PERCPU_ARRAY: TypeRules(key=4, key_type="u32"),
    MapType.PROG_ARRAY: _REFERENCES,
    MapType.PERF_EVENT_ARRAY: TypeRules(key=4, value=4, records=True),
    MapType.STACK_TRACE: TypeRules(key=4, value=127 * 8),
    MapType.CGROUP_ARRAY: _REFERENCES,
    MapType.LPM_TRIE: TypeRules(flags=NO_PREALLOC),
    MapType.RHASH: TypeRules(flags=NO_PREALLOC),
    MapType.ARRAY_OF_MAPS: _REFERENCES,
    MapType.HASH_OF_MAPS: TypeRules(value=4),
    MapType.DEVMAP: _REFERENCES,
    MapType.DEVMAP_HASH: _REFERENCES,
    MapType.CPUMAP: _REFERENCES,
    MapType.XSKMAP: _REFERENCES,
    MapType.SOCKMAP: _REFERENCES,
    MapType.SOCKHASH: TypeRules(value=4),
    MapType.REUSEPORT_SOCKARRAY: TypeRules(key=4, value=8),
    MapType.CGROUP_STORAGE: TypeRules(key=8, entries=False),
    MapType.PERCPU_CGROUP_STORAGE: TypeRules(key=8, entries=False),
    MapType.QUEUE: _QUEUE,
    MapType.STACK: _QUEUE,
    MapType.BLOOM_FILTER: _QUEUE,
    MapType.SK_STORAGE: _STORAGE,
    MapType.INODE_STORAGE: _STORAGE,
    MapType.TASK_STORAGE: _STORAGE,
    MapType.CGRP_STORAGE: _STORAGE,
    MapType.RINGBUF: TypeRules(key=0, value=0, records=True),
    MapType.USER_RINGBUF: TypeRules(key=0, value=0, records=True),
    MapType.ARENA: TypeRules(key=0, value=0, flags=MMAPABLE),
}


def shape_of(type: MapType) -> TypeRules:
    """Returns the rules of a map type; a type without special rules takes any key and any value."""
    return _SHAPES.get(type, TypeRules())
