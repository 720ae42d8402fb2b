"""Tells how full a map is, and how much memory it takes. It gives up where that would take long."""

from __future__ import annotations

import errno
from array import array
from typing import Any

from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.cpus import possible_cpus
from pytest_bpfmaps.libbpf import ffi, lib, opts
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.batch import UNSUPPORTED, BatchMap
from pytest_bpfmaps.maps.families.array import ArrayMap

MOST = 1 << 16
"""A map that can hold more entries is not counted: the kernel looks at every place of it."""

_MOST_STEPS = 1 << 12  # keys that are listed one by one
_MOST_BYTES = 1 << 16  # of an array's values, and of the memory for a batch
_ONE_BY_ONE = 64  # elements of an array that has no batch command
_LISTED = frozenset(
    {MapType.LPM_TRIE, MapType.HASH_OF_MAPS, MapType.SOCKHASH, MapType.DEVMAP_HASH, MapType.STACK_TRACE}
)
_HASHES = frozenset({MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH})
_PER_CPU = frozenset({MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.PERCPU_ARRAY})
_FORMATS: dict[int, Any] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def entries(the_map: Map) -> int | str:
    """Returns how many entries a map has now, or why that is unknown.

    Of an array, these are the values with a byte that is not zero: an array always has all its elements.
    """
    if the_map.max_entries > MOST:
        return f"it may hold more than {MOST:,}"
    try:
        if isinstance(the_map, ArrayMap):
            return _not_zero(the_map)
        if isinstance(the_map, BatchMap) and the_map.type in _HASHES:
            found = _by_batches(the_map)
            return _one_by_one(the_map) if found is None else found
        if the_map.type in _LISTED:
            return _one_by_one(the_map)
    except (BpfError, OSError) as error:
        return str(error).splitlines()[0]
    return f"entries of a map of type {the_map.type} can't be counted"


def _value_bytes(the_map: Map) -> int:
    """Returns how many bytes the kernel copies for a value: those of all CPUs, for a per-CPU map."""
    if the_map.type not in _PER_CPU:
        return the_map.value_size
    return (the_map.value_size + 7 & ~7) * possible_cpus()


def memory(fd: int) -> int | None:
    """Returns the bytes that the kernel accounts for a map (``memlock`` of its fdinfo); None without that.

    Linux 5.11 to 6.3 estimate it from the sizes of keys and values, without the values of each CPU.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            text = file.read()
    except OSError:
        return None
    _, found, rest = text.partition(b"memlock:")
    return int(rest.split(None, 1)[0]) if found else None


def _by_batches(the_map: BatchMap) -> int | None:
    """Counts with ``BPF_MAP_LOOKUP_BATCH`` (Linux 5.6), which copies the values; None where it can't."""
    key_size, value_size = the_map.key_size, _value_bytes(the_map)
    chunk = max(1, min(the_map.max_entries, _MOST_BYTES // (key_size + value_size)))
    place, count, settings = bytearray(max(key_size, 4)), ffi.new("uint32_t *"), opts("bpf_map_batch_opts")
    at: Any = ffi.from_buffer(place)
    total = 0
    while True:
        keys, values = bytearray(chunk * key_size), bytearray(chunk * value_size)
        count[0] = chunk
        result = lib.bpf_map_lookup_batch(
            the_map.fd,
            at if total else ffi.NULL,
            at,
            ffi.from_buffer(keys),
            ffi.from_buffer(values),
            count,
            settings,
        )
        if result == -errno.ENOSPC:  # a bucket holds more than the chunk
            chunk *= 2
            continue
        if result < 0 and result != -errno.ENOENT:
            return None
        total += int(count[0])
        if result == -errno.ENOENT or not count[0]:
            return total


def _one_by_one(the_map: Map) -> int | str:
    size, fd = the_map.key_size, the_map.fd
    keys = [ffi.from_buffer(bytearray(size)) for _ in range(2)]
    before: Any = ffi.NULL
    for count in range(min(the_map.max_entries, _MOST_STEPS) + 1):
        result = lib.bpf_map_get_next_key(fd, before, keys[count % 2])
        if result == -errno.ENOENT:
            return count
        if result < 0:
            return f"the kernel does not list its keys (errno {-result})"
        before = keys[count % 2]
    if the_map.max_entries > _MOST_STEPS:
        return f"more than {_MOST_STEPS:,}"
    return "programs changed it while it was counted"


def _not_zero(the_map: ArrayMap) -> int | str:
    size, count = _value_bytes(the_map), the_map.max_entries
    if size * count > _MOST_BYTES:
        return f"its values are larger than {_MOST_BYTES:,} bytes"
    values = bytearray(size * count)
    got = ffi.new("uint32_t *", count)
    place = ffi.from_buffer(bytearray(4))
    result = lib.bpf_map_lookup_batch(
        the_map.fd,
        ffi.NULL,
        place,
        ffi.from_buffer(bytearray(4 * count)),
        ffi.from_buffer(values),
        got,
        opts("bpf_map_batch_opts"),
    )
    if -result in UNSUPPORTED:
        if count > _ONE_BY_ONE:
            return f"this kernel gives no batch of type {the_map.type}, and it has more than {_ONE_BY_ONE}"
        for index in range(count):
            key = ffi.new("uint32_t *", index)
            to = ffi.from_buffer(memoryview(values)[index * size : (index + 1) * size])
            if lib.bpf_map_lookup_elem(the_map.fd, key, to) < 0:
                return "this user can't read its values"
    elif result < 0 and result != -errno.ENOENT:
        return "this user can't read its values"
    if not any(values):
        return 0
    if size in _FORMATS:
        return count - array(_FORMATS[size], bytes(values)).count(0)
    return sum(any(values[at : at + size]) for at in range(0, len(values), size))
