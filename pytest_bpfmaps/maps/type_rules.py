"""What each map type wants of key, value, number of elements and flags."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_bpfmaps.kernel.bpf_types import MapType

NO_PREALLOC, MMAPABLE = 1 << 0, 1 << 10
ANY = -1
"""Any size, which has to be given."""


@dataclass(frozen=True, slots=True)
class Shape:
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


_REFERENCES = Shape(key=4, value=4)
_STORAGE = Shape(key=4, key_type="int", entries=False, flags=NO_PREALLOC)
_QUEUE = Shape(key=0)

_SHAPES: dict[int, Shape] = {
    MapType.ARRAY: Shape(key=4, key_type="u32"),
    MapType.PERCPU_ARRAY: Shape(key=4, key_type="u32"),
    MapType.PROG_ARRAY: _REFERENCES,
    MapType.PERF_EVENT_ARRAY: Shape(key=4, value=4, records=True),
    MapType.STACK_TRACE: Shape(key=4, value=127 * 8),
    MapType.CGROUP_ARRAY: _REFERENCES,
    MapType.LPM_TRIE: Shape(flags=NO_PREALLOC),
    MapType.RHASH: Shape(flags=NO_PREALLOC),
    MapType.ARRAY_OF_MAPS: _REFERENCES,
    MapType.HASH_OF_MAPS: Shape(value=4),
    MapType.DEVMAP: _REFERENCES,
    MapType.DEVMAP_HASH: _REFERENCES,
    MapType.CPUMAP: _REFERENCES,
    MapType.XSKMAP: _REFERENCES,
    MapType.SOCKMAP: _REFERENCES,
    MapType.SOCKHASH: Shape(value=4),
    MapType.REUSEPORT_SOCKARRAY: Shape(key=4, value=8),
    MapType.CGROUP_STORAGE: Shape(key=8, entries=False),
    MapType.PERCPU_CGROUP_STORAGE: Shape(key=8, entries=False),
    MapType.QUEUE: _QUEUE,
    MapType.STACK: _QUEUE,
    MapType.BLOOM_FILTER: _QUEUE,
    MapType.SK_STORAGE: _STORAGE,
    MapType.INODE_STORAGE: _STORAGE,
    MapType.TASK_STORAGE: _STORAGE,
    MapType.CGRP_STORAGE: _STORAGE,
    MapType.RINGBUF: Shape(key=0, value=0, records=True),
    MapType.USER_RINGBUF: Shape(key=0, value=0, records=True),
    MapType.ARENA: Shape(key=0, value=0, flags=MMAPABLE),
}


def shape_of(type: MapType) -> Shape:
    """The rules for a map type; any key and any value for those that are not special."""
    return _SHAPES.get(type, Shape())
