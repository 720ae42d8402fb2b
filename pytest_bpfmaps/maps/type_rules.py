"""What each map type asks of its key, value, number of elements and flags."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_bpfmaps.kernel.bpf_types import MapType

NO_PREALLOC, MMAPABLE = 1 << 0, 1 << 10
ANY = -1
"""Any size, which has to be given."""


@dataclass(frozen=True, slots=True)
class TypeRules:
    """Sizes in bytes, of keys and values that need not be given; 0 for a map that has none.

    `flags` are those that the kernel insists on. `entries` is False when the number of elements is no choice.
    `records`: a value is the type of the records, for this package alone. `key_type` is that of a key that is
    not given beside a value with a type: the kernel takes both or none.
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
    """The rules for a map type; any key and any value for those that are not special."""
    return _SHAPES.get(type, TypeRules())
