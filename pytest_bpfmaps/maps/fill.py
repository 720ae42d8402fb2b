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

_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC: the kernel gets memory for each entry
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
            values = ArrayValues(the_map)
            values.changed()
            return values.entries()
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


def has_constant_memory(the_map: Map) -> bool:
    """Returns whether `memory` depends on the declaration of a map only, and not on its entries."""
    constant = isinstance(the_map, ArrayMap) or the_map.type in _HASHES or the_map.type is MapType.RINGBUF
    return constant and not the_map.flags & _NO_PREALLOC


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


class ArrayValues:
    """Reads all values of an array, as often as somebody asks, into the same memory."""

    def __init__(self, the_map: ArrayMap) -> None:
        self._fd, self._type, self._count = the_map.fd, the_map.type, the_map.max_entries
        self._size, self._before, self._has_batch = _value_bytes(the_map), b"", True
        self._why = ""
        if self._count > MOST:
            self._why = f"it may hold more than {MOST:,}"
        elif self._size * self._count > _MOST_BYTES:
            self._why = f"its values are larger than {_MOST_BYTES:,} bytes"
        else:
            self._values, self._got = bytearray(self._size * self._count), ffi.new("uint32_t *")
            buffers = bytearray(4), bytearray(4 * self._count), self._values
            self._buffers = [ffi.from_buffer(each) for each in buffers]
            self._settings = opts("bpf_map_batch_opts")

    def changed(self) -> bool:
        """Reads the values. Returns whether they differ from what the last call read."""
        if not self._read():
            return False
        before, self._before = self._before, bytes(self._values)
        return self._before != before

    def entries(self) -> int | str:
        """Returns how many of the values that `changed` read are not zero, or why that is unknown."""
        if self._why:
            return self._why
        if not any(self._values):
            return 0
        size = self._size
        if size in _FORMATS:
            return self._count - array(_FORMATS[size], bytes(self._values)).count(0)
        return sum(any(self._values[at : at + size]) for at in range(0, len(self._values), size))

    def _read(self) -> bool:
        """Returns whether the values could be read; else `_why` says why not."""
        if self._why:
            return False
        if self._has_batch:
            self._got[0] = self._count
            place, keys, values = self._buffers
            result = lib.bpf_map_lookup_batch(
                self._fd, ffi.NULL, place, keys, values, self._got, self._settings
            )
            if result >= 0 or result == -errno.ENOENT:
                return True
            self._has_batch = -result not in UNSUPPORTED
        if self._has_batch:
            self._why = "this user can't read its values"
        elif self._count > _ONE_BY_ONE:
            kind = f"this kernel gives no batch of type {self._type}"
            self._why = f"{kind}, and it has more than {_ONE_BY_ONE}"
        else:
            self._read_one_by_one()
        return not self._why

    def _read_one_by_one(self) -> None:
        for index in range(self._count):
            to = ffi.from_buffer(memoryview(self._values)[index * self._size : (index + 1) * self._size])
            if lib.bpf_map_lookup_elem(self._fd, ffi.new("uint32_t *", index), to) < 0:
                self._why = "this user can't read its values"
                return
