"""Reading, writing and deleting many elements: batch commands, or one by one where the kernel lacks them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ..errors import MapError
from ..libbpf import ffi, lib, opts
from ..libbpf.calls import failure

if TYPE_CHECKING:
    from .base import Map

# 524 is the kernel's ENOTSUPP: batch commands came to map types one after another (hash and array: Linux 5.6)
UNSUPPORTED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, 524})
_FIRST_CHUNK = 4096


def lookup_all(the_map: Map) -> tuple[bytes, bytes, int]:
    """All elements as (keys, values, count), keys and values packed one after another."""
    found = _lookup_batches(the_map)
    return found if found is not None else _lookup_each(the_map)


def _lookup_batches(the_map: Map) -> tuple[bytes, bytes, int] | None:
    """With ``BPF_MAP_LOOKUP_BATCH``; None where the kernel lacks it for this type."""
    key_size, value_size = the_map.key_size, the_map._value_bytes
    chunk = max(1, min(the_map.max_entries, _FIRST_CHUNK))
    token_size = max(key_size, 4)
    token, next_token = bytearray(token_size), bytearray(token_size)
    keys, values, total = bytearray(), bytearray(), 0
    count = ffi.new("uint32_t *")
    settings = opts("bpf_map_batch_opts")
    started = False
    while True:
        key_out, value_out = bytearray(chunk * key_size), bytearray(chunk * value_size)
        count[0] = chunk
        result = lib.bpf_map_lookup_batch(
            the_map.fd,
            ffi.from_buffer(token) if started else ffi.NULL,
            ffi.from_buffer(next_token),
            ffi.from_buffer(key_out),
            ffi.from_buffer(value_out),
            count,
            settings,
        )
        if result == -errno.ENOSPC:  # a hash bucket holds more than the chunk
            chunk *= 2
            continue
        if result < 0 and result != -errno.ENOENT:
            if not started and -result in UNSUPPORTED:
                return None
            raise failure(-result, MapError, "cannot read", on=str(the_map))
        got = count[0]
        keys += memoryview(key_out)[: got * key_size]
        values += memoryview(value_out)[: got * value_size]
        total += got
        if result == -errno.ENOENT or got == 0:
            return bytes(keys), bytes(values), total
        token, next_token = next_token, token
        started = True
        chunk = min(chunk * 4, 1 << 18, max(chunk, the_map.max_entries))


def _lookup_each(the_map: Map) -> tuple[bytes, bytes, int]:
    keys, values, total = bytearray(), bytearray(), 0
    for key in raw_keys(the_map):
        out = bytearray(the_map._value_bytes)
        result = lib.bpf_map_lookup_elem(the_map.fd, ffi.from_buffer(key), ffi.from_buffer(out))
        if result == -errno.ENOENT:
            continue  # deleted since we saw the key
        if result < 0:
            raise failure(-result, MapError, "cannot read", on=str(the_map))
        keys += key
        values += out
        total += 1
    return bytes(keys), bytes(values), total


def raw_keys(the_map: Map) -> list[bytes]:
    """All keys, by ``BPF_MAP_GET_NEXT_KEY``.

    When the current key is deleted meanwhile the kernel starts over at the first one, so keys may come twice;
    each is listed once. A writer that keeps deleting can't hold us here for ever: the number of steps is
    bounded.
    """
    seen: dict[bytes, None] = {}
    key: bytes | None = None
    for _ in range(3 * the_map.max_entries + 64):
        key = the_map._next_raw_key(key)
        if key is None:
            break
        seen[key] = None
    return list(seen)


def update_all(the_map: Map, keys: bytes, values: bytes, count: int, flags: int) -> None:
    """Writes packed elements. Raises `MapError`; elements before the refused one are written."""
    if not count:
        return
    done = ffi.new("uint32_t *", count)
    result = lib.bpf_map_update_batch(
        the_map.fd,
        ffi.from_buffer(keys),
        ffi.from_buffer(values),
        done,
        opts("bpf_map_batch_opts", elem_flags=flags),
    )
    written = done[0] if done[0] < count else 0
    if result < 0 and -result in UNSUPPORTED and not written:
        _update_each(the_map, keys, values, count, flags)
    elif result < 0:
        key = the_map._key.decode(keys, written * the_map.key_size)
        the_map._refuse(-result, "update", key, flags)


def _update_each(the_map: Map, keys: bytes, values: bytes, count: int, flags: int) -> None:
    key_size, value_size = the_map.key_size, the_map._value_bytes
    for i in range(count):
        key = keys[i * key_size : (i + 1) * key_size]
        value = values[i * value_size : (i + 1) * value_size]
        result = lib.bpf_map_update_elem(the_map.fd, ffi.from_buffer(key), ffi.from_buffer(value), flags)
        if result < 0:
            the_map._refuse(-result, "update", the_map._key.decode(key), flags)


def delete_all(the_map: Map, keys: bytes, count: int) -> None:
    """Deletes packed keys. Raises `MapKeyError` for one that is missing; those before it are deleted."""
    if not count:
        return
    done = ffi.new("uint32_t *", count)
    result = lib.bpf_map_delete_batch(the_map.fd, ffi.from_buffer(keys), done, opts("bpf_map_batch_opts"))
    deleted = done[0] if done[0] < count else 0
    if result < 0 and -result in UNSUPPORTED and not deleted:
        size = the_map.key_size
        for i in range(count):
            the_map.delete_elem(the_map._key.decode(keys, i * size))
    elif result < 0:
        the_map._refuse(-result, "delete", the_map._key.decode(keys, deleted * the_map.key_size))
