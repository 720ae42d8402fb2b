"""Maps that behave like a `dict`: hash and LRU hash. They are also the base of arrays and per-CPU maps."""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.comparison import swapped_key
from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.map_flags import BPF_ANY
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.batch import BatchMap
from pytest_bpfmaps.maps.dict_protocol import Items
from pytest_bpfmaps.maps.equal_keys import ADVICE, alike, describe
from pytest_bpfmaps.maps.flags import flags_of
from pytest_bpfmaps.maps.lazy_snapshot import LAZY_FROM, LazySnapshot
from pytest_bpfmaps.maps.snapshot import Snapshot


class HashMap(BatchMap, types=(MapType.HASH, MapType.LRU_HASH, MapType.RHASH)):
    """``BPF_MAP_TYPE_HASH``, ``BPF_MAP_TYPE_LRU_HASH``, ``BPF_MAP_TYPE_RHASH``: a dict, and batches.

    Iteration and views work on the keys that were there when they started.
    """

    def __getitem__(self, key: Any) -> Any:
        # dict(m) calls this for each element, so it does only what is needed to find the element
        out = bytearray(self._value_bytes)
        raw = self._encode_key(key)
        if lib.bpf_map_lookup_elem(self._fd, ffi.from_buffer(raw), ffi.from_buffer(out)) == 0:
            return self._decode_value(out)
        return self.lookup_elem(key)

    def __contains__(self, key: Any) -> bool:
        out = bytearray(self._value_bytes)
        raw = self._encode_key(key)
        result = lib.bpf_map_lookup_elem(self.fd, ffi.from_buffer(raw), ffi.from_buffer(out))
        if result < 0 and result != -errno.ENOENT:
            self._refuse(-result, "look up", key)
        return bool(result == 0)

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the value of `key`, or `default` if it is missing."""
        raw, out = self._encode_key(key), bytearray(self._value_bytes)
        result = lib.bpf_map_lookup_elem(self.fd, ffi.from_buffer(raw), ffi.from_buffer(out))
        if result == -errno.ENOENT:
            return default
        if result < 0:
            self._refuse(-result, "look up", key)
        return self._decode_value(out)

    def __len__(self) -> int:
        return self._lookup_all().count

    def snapshot(self) -> Snapshot:
        """Returns all elements as a new `dict`, which later changes of the map don't affect.

        A large map's elements are decoded when they are read. If programs write to the map meanwhile,
        elements that they add or delete may be missing; all other elements are in the snapshot.
        """
        return self._snapshot(LAZY_FROM)

    def packed_snapshot(self) -> Snapshot:
        """Returns the same as `snapshot`, but decodes no element before it is read.

        It is for a snapshot that is rarely looked at: to decode takes most of a snapshot's time.
        """
        return self._snapshot(0)

    def _snapshot(self, lazy_from: int) -> Snapshot:
        decoders, value = (self._decode_value, self._decode_values), self._compared_value()
        codec, name = self._key, str(self)
        return LazySnapshot(
            self._lookup_all(), decoders, origin=name, codec=codec, value=value, lazy_from=lazy_from
        )

    def to_numpy(self) -> tuple[Any, Any]:
        """Returns all elements as two NumPy arrays, keys and values, with dtypes made from BTF.

        Raises `UnsupportedError` without NumPy, or for a C type that NumPy can't show.
        """
        from pytest_bpfmaps.btf import numpy_arrays

        found = self._lookup_all()
        keys = numpy_arrays.to_array(found.keys, self._key, found.count)
        return keys, numpy_arrays.to_array(found.values, self._value, found.count, *self._lanes())

    def clear(self) -> None:
        """Deletes all elements."""
        keys, size = self._lookup_all().keys, self.key_size
        for at in range(0, len(keys), size):
            key = keys[at : at + size]
            result = lib.bpf_map_delete_elem(self.fd, ffi.from_buffer(key))
            if result < 0 and result != -errno.ENOENT:
                self._refuse(-result, "delete", self._key.listed(key))

    def lookup_batch(self) -> list[tuple[Any, Any]]:
        """Returns all elements as (key, value) pairs; ``BPF_MAP_LOOKUP_BATCH`` if it exists (Linux 5.6)."""
        return list(self.snapshot().items())

    def _take(self, key: Any) -> Any:
        try:
            return self.lookup_and_delete_elem(key)
        except UnsupportedError:  # before Linux 5.14 it takes two steps
            return super()._take(key)

    def update(self, items: Items) -> None:
        """Writes the elements of a mapping, or of pairs, as `update_batch` does."""
        self.update_batch(items)

    def update_batch(self, items: Items, flags: int = BPF_ANY) -> None:
        """Writes many elements; ``BPF_MAP_UPDATE_BATCH`` if the kernel has it (Linux 5.6).

        `items` is a mapping, pairs, or a tuple of two NumPy arrays as `to_numpy` returns them: keys, values.
        All keys and values are checked before the first one is written.
        """
        if isinstance(items, tuple) and len(items) == 2 and all(hasattr(a, "dtype") for a in items):
            keys, values, count = self._pack_arrays(*items)
        else:
            keys, values, count = self._pack(items if isinstance(items, Mapping) else list(items))
        self._update_all(keys, values, count, flags_of(flags))

    def _pack(self, pairs: Mapping[Any, Any] | list[tuple[Any, Any]]) -> tuple[bytes, bytes, int]:
        keys = list(pairs) if isinstance(pairs, Mapping) else [k for k, _ in pairs]
        values = list(pairs.values()) if isinstance(pairs, Mapping) else [v for _, v in pairs]
        return self._encode_keys(keys), self._encode_values(values), len(keys)

    def _pack_arrays(self, keys: Any, values: Any) -> tuple[Any, Any, int]:
        from pytest_bpfmaps.btf import numpy_arrays

        numpy_arrays.check_lengths(keys, values, str(self))
        raw_keys = numpy_arrays.from_array(keys, self._key, self._key_where)
        return (
            raw_keys,
            numpy_arrays.from_array(values, self._value, self._value_where, *self._lanes()),
            len(keys),
        )

    def delete_batch(self, keys: Iterable[Any]) -> None:
        """Deletes many keys; ``BPF_MAP_DELETE_BATCH`` if the kernel has it (Linux 5.6)."""
        wanted = list(keys)
        self._delete_all(self._encode_keys(wanted), len(wanted))

    def __eq__(self, other: object) -> bool:
        """Returns whether the map holds the same elements as a mapping now, or whether it is the same map."""
        if isinstance(other, Map):
            return Map.__eq__(self, other)
        fits: bool = self._compare(other, operator.eq)
        return fits

    def __ge__(self, other: object) -> bool:
        """Returns whether the map holds all elements of the mapping `other` now."""
        fits: bool = self._compare(other, operator.ge)
        return fits

    def __le__(self, other: object) -> bool:
        """Returns whether the mapping `other` has all elements of the map."""
        fits: bool = self._compare(other, operator.le)
        return fits

    __hash__ = Map.__hash__

    def _compare(self, other: object, how: Callable[[Any, Any], Any]) -> Any:
        if isinstance(other, Map) or not isinstance(other, Mapping):
            return NotImplemented
        seen = self.snapshot()
        fits = how(seen, other)
        self.compared = None if fits else seen
        return fits

    compared: Snapshot | None = None
    """The elements at the last failed comparison: the map may have changed by the time of the report."""

    def _encode_keys(self, keys: list[Any]) -> bytes:
        if self._key.exact:
            return self._key.encode_all(keys, self._key_where)
        return b"".join([self._encode_key(key) for key in keys])

    def _encode_values(self, values: list[Any]) -> bytes:
        return self._value.encode_all(values, self._value_where)

    def _decode_values(self, raw: bytes, count: int) -> list[Any]:
        return self._value.decode_all(raw)

    def _compared_value(self) -> Codec | None:
        """Returns the type of a snapshot's values."""
        return self._value

    def _lanes(self) -> tuple[int, int] | tuple[()]:
        """Returns (number of CPUs, bytes from one CPU's value to the next) for a per-CPU map; else ()."""
        return ()

    def _explain_missing(self, key: Any) -> tuple[str | None, str | None]:
        if not self._key.exact:
            raw = self._encode_key(key)
            twins = alike(self._key, self._walk_keys(), raw)
            if twins:
                return describe(twins, raw), ADVICE
        keys = self._some_keys(6)
        if not keys:
            return None, "the map is empty"
        shown = ", ".join(map(repr, keys[:5])) + (", …" if len(keys) > 5 else "")
        wanted = self._key.listed(self._encode_key(key)) if isinstance(key, tuple) else key
        return swapped_key(wanted, keys), f"its keys: {shown}"

    def _some_keys(self, most: int) -> list[Any]:
        return [self._key.listed(key) for key in islice(self._walk_keys(), most)]

    def _walk_keys(self) -> Iterator[bytes]:
        """Yields the keys one after another, as the kernel lists them."""
        key = self._next_raw_key(None)
        while key is not None:
            yield key
            key = self._next_raw_key(key)
