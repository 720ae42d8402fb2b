"""Maps that behave like a `dict`: hash and LRU hash; the base of arrays and per-CPU maps too."""

from __future__ import annotations

import errno
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from .. import BPF_ANY
from ..libbpf import ffi, lib
from . import batch
from .base import Map

Items = Mapping[Any, Any] | Iterable[tuple[Any, Any]]


class HashMap(Map):
    """``BPF_MAP_TYPE_HASH``, ``BPF_MAP_TYPE_LRU_HASH``: the dict protocol, and batches.

    Iteration and views work on the keys that were there when they started.
    """

    def __getitem__(self, key: Any) -> Any:
        return self.lookup_elem(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.update_elem(key, value)

    def __delitem__(self, key: Any) -> None:
        self.delete_elem(key)

    def __contains__(self, key: Any) -> bool:
        out = bytearray(self._value_bytes)
        raw = self._encode_key(key)
        result = lib.bpf_map_lookup_elem(self.fd, ffi.from_buffer(raw), ffi.from_buffer(out))
        if result < 0 and result != -errno.ENOENT:
            self._refuse(-result, "look up", key)
        return bool(result == 0)

    def __len__(self) -> int:
        return batch.lookup_all(self)[2]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.snapshot())

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        try:
            return self.lookup_elem(key)
        except KeyError:
            return default

    def keys(self) -> KeysView[Any]:
        """The keys as they are now; a snapshot, not a live view."""
        return self.snapshot().keys()

    def values(self) -> ValuesView[Any]:
        """The values as they are now."""
        return self.snapshot().values()

    def items(self) -> ItemsView[Any, Any]:
        """The elements as they are now."""
        return self.snapshot().items()

    def snapshot(self) -> dict[Any, Any]:
        """All elements as a new `dict`; later changes of the map don't show in it."""
        keys, values, count = batch.lookup_all(self)
        return dict(zip(self._key.decode_all(keys), self._decode_values(values, count), strict=True))

    def clear(self) -> None:
        """Deletes all elements."""
        for key in batch.raw_keys(self):
            result = lib.bpf_map_delete_elem(self.fd, ffi.from_buffer(key))
            if result < 0 and result != -errno.ENOENT:
                self._refuse(-result, "delete", self._key.decode(key))

    def lookup_batch(self) -> list[tuple[Any, Any]]:
        """All elements as (key, value) pairs; ``BPF_MAP_LOOKUP_BATCH`` where it exists (Linux 5.6)."""
        return list(self.snapshot().items())

    def update_batch(self, items: Items, flags: int = BPF_ANY) -> None:
        """Writes many elements; ``BPF_MAP_UPDATE_BATCH`` where the kernel has it (Linux 5.6).

        All keys and values are checked before the first is written.
        """
        pairs = list(items.items() if isinstance(items, Mapping) else items)
        keys = b"".join(self._encode_key(k) for k, _ in pairs)
        values = b"".join(self._encode_value(v) for _, v in pairs)
        batch.update_all(self, keys, values, len(pairs), flags)

    def delete_batch(self, keys: Iterable[Any]) -> None:
        """Deletes many keys; ``BPF_MAP_DELETE_BATCH`` where the kernel has it (Linux 5.6)."""
        raw = [self._encode_key(k) for k in keys]
        batch.delete_all(self, b"".join(raw), len(raw))

    def __eq__(self, other: object) -> bool:
        """Against a mapping: whether it holds the same keys and values now. Against a map: identity."""
        if isinstance(other, Map) or not isinstance(other, Mapping):
            return NotImplemented
        mine = self._by_raw_key()
        if len(mine) != len(other):
            return False
        try:
            return all(mine[self._encode_key(k)] == v for k, v in other.items())
        except (KeyError, TypeError, ValueError):
            return False  # a key that is not there, or that the key's C type could not even hold

    __hash__ = object.__hash__

    def _by_raw_key(self) -> dict[bytes, Any]:
        keys, values, count = batch.lookup_all(self)
        size = self.key_size
        raw = (keys[i * size : (i + 1) * size] for i in range(count))
        return dict(zip(raw, self._decode_values(values, count), strict=True))

    def _decode_values(self, raw: bytes, count: int) -> list[Any]:
        return self._value.decode_all(raw)

    def _missing_key_hint(self) -> str | None:
        keys = [repr(k) for k in self._some_keys(6)]
        if not keys:
            return "the map is empty"
        return "its keys: " + ", ".join(keys[:5]) + (", …" if len(keys) > 5 else "")

    def _some_keys(self, most: int) -> list[Any]:
        found: list[Any] = []
        key: bytes | None = None
        while len(found) < most:
            key = self._next_raw_key(key)
            if key is None:
                break
            found.append(self._key.decode(key))
        return found
