"""Reads, writes and deletes many elements: by batch commands, or one by one if the kernel lacks these."""

from __future__ import annotations

import errno
import logging
import struct
from typing import Any

from pytest_bpfmaps.btf.codec import Buffer
from pytest_bpfmaps.errors import ENOTSUPP, MapError, UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.map_flags import BPF_F_ALL_CPUS, BPF_F_CPU
from pytest_bpfmaps.libbpf import ffi, lib, opts
from pytest_bpfmaps.libbpf.calls import failure
from pytest_bpfmaps.maps.dict_protocol import DictMap
from pytest_bpfmaps.maps.elements import Elements
from pytest_bpfmaps.maps.key_walk import Walk

# Map types got batch commands in different releases (hash and array: Linux 5.6).
UNSUPPORTED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, ENOTSUPP})
_log = logging.getLogger(__name__)
_FIRST_CHUNK = 4096
_MOST = 1 << 20  # elements in one call

# Their batch command goes bucket by bucket or index by index, so that no key comes twice. For other types it
# goes from key to key, and starts again when the key that it has reached is deleted.
_IN_ORDER = frozenset(
    {
        *(MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH),
        *(MapType.ARRAY, MapType.PERCPU_ARRAY),
    }
)


# this memory is not cleared, so it takes no time before the kernel writes to it
_allocate = ffi.new_allocator(should_clear_after_alloc=False)


class BatchMap(DictMap):
    """A map whose elements can be read, written and deleted in one call."""

    def _lookup_all(self) -> Elements:
        """Returns all elements; elements that are added or deleted meanwhile may be missing."""
        return self._read_memory() or self._lookup_batches() or self._lookup_each()

    def _lookup_each(self) -> Elements:
        walk = Walk(self._next_raw_key, self._find_raw, most=4 * self.max_entries + 1024)
        found = walk.found
        if not walk.complete:
            what = "programs write to it so fast that it could not be read completely"
            _log.warning("%s: %s; %d elements were seen", self, what, len(found))
        return Elements(b"".join(found), b"".join(found.values()), len(found), walk.restarts, walk.complete)

    def _find_raw(self, key: bytes) -> bytes | None:
        """Returns the value of a key; None if the key was deleted."""
        out = bytearray(self._value_bytes)
        result = lib.bpf_map_lookup_elem(self.fd, ffi.from_buffer(key), ffi.from_buffer(out))
        if result == -errno.ENOENT:
            return None
        if result < 0:
            raise failure(-result, MapError, "cannot read", on=str(self))
        return bytes(out)

    def _lookup_batches(self) -> Elements | None:
        """Reads with ``BPF_MAP_LOOKUP_BATCH``; None if the kernel lacks it for this type, or gives up."""
        sizes = self.key_size, self._value_bytes
        place, next_place = bytearray(max(sizes[0], 4)), bytearray(max(sizes[0], 4))
        packed: tuple[list[Any], list[Any]] = ([], [])
        total, started = 0, False
        chunk = max(1, min(self.max_entries, _FIRST_CHUNK))
        count, settings = ffi.new("uint32_t *"), opts("bpf_map_batch_opts")
        while True:
            room = [_allocate("char[]", max(1, chunk * size)) for size in sizes]
            count[0] = chunk
            result = lib.bpf_map_lookup_batch(
                self.fd,
                ffi.from_buffer(place) if started else ffi.NULL,
                ffi.from_buffer(next_place),
                *room,
                count,
                settings,
            )
            if result == -errno.ENOSPC:  # a hash bucket holds more than the chunk
                chunk *= 2
                continue
            if result < 0 and result != -errno.ENOENT:
                if result == -errno.EINTR or (not started and -result in UNSUPPORTED):
                    return None  # EINTR: a program deleted every key from which the kernel tried to go on
                raise failure(-result, MapError, "cannot read", on=str(self))
            got = count[0]
            for chunks, memory, size in zip(packed, room, sizes, strict=True):
                chunks.append(ffi.buffer(memory, got * size))
            total += got
            if result == -errno.ENOENT or got == 0:
                break
            if total > 2 * self.max_entries + _FIRST_CHUNK and self.type not in _IN_ORDER:
                return None  # the kernel started again and again
            place, next_place, started = next_place, place, True
            chunk = min(_MOST, max(chunk, self.max_entries))
        found = Elements(b"".join(packed[0]), b"".join(packed[1]), total)
        return found if self.type in _IN_ORDER else _each_once(found, *sizes)

    def _update_all(self, keys: Buffer, values: Buffer, count: int, flags: int) -> None:
        """Writes packed elements. Raises `MapError`; the elements before the refused one are written."""
        if not count:
            return
        if flags & (BPF_F_CPU | BPF_F_ALL_CPUS):
            raise UnsupportedError(
                "cannot update",
                on=str(self),
                why="BPF_F_CPU and BPF_F_ALL_CPUS work only for one element at a time",
                fix="use m.update_elem(key, value, flags) for each",
                errno=errno.EINVAL,
            )
        done = ffi.new("uint32_t *", count)
        result = lib.bpf_map_update_batch(
            self.fd,
            ffi.from_buffer(keys),
            ffi.from_buffer(values),
            done,
            opts("bpf_map_batch_opts", elem_flags=flags),
        )
        written = done[0] if done[0] < count else 0
        if result < 0 and -result in UNSUPPORTED and not written:
            self._update_each(keys, values, count, flags)
        elif result < 0:
            key = self._key.decode(keys, written * self.key_size)
            self._refuse(-result, "update", key, flags)

    def _update_each(self, keys: Buffer, values: Buffer, count: int, flags: int) -> None:
        key_size, value_size = self.key_size, self._value_bytes
        for i in range(count):
            key = keys[i * key_size : (i + 1) * key_size]
            value = values[i * value_size : (i + 1) * value_size]
            result = lib.bpf_map_update_elem(self.fd, ffi.from_buffer(key), ffi.from_buffer(value), flags)
            if result < 0:
                self._refuse(-result, "update", self._key.decode(key), flags)

    def _delete_all(self, keys: Buffer, count: int) -> None:
        """Deletes packed keys. Raises `MapKeyError` for a missing key; the keys before it are deleted."""
        if not count:
            return
        done = ffi.new("uint32_t *", count)
        result = lib.bpf_map_delete_batch(self.fd, ffi.from_buffer(keys), done, opts("bpf_map_batch_opts"))
        deleted = done[0] if done[0] < count else 0
        if result < 0 and -result in UNSUPPORTED and not deleted:
            size = self.key_size
            for i in range(count):
                self._delete_raw(bytes(keys[i * size : (i + 1) * size]))
        elif result < 0:
            self._refuse(-result, "delete", self._key.decode(keys, deleted * self.key_size))


def _each_once(found: Elements, key_size: int, value_size: int) -> Elements:
    keys = [k for (k,) in struct.iter_unpack(f"{key_size}s", found.keys)] if key_size else []
    if len(set(keys)) == found.count:
        return found
    values = (found.values[i * value_size : (i + 1) * value_size] for i in range(found.count))
    unique = dict(zip(keys, values, strict=True))
    return Elements(b"".join(unique), b"".join(unique.values()), len(unique))
