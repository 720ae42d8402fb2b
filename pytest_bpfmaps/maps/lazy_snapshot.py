"""The snapshot of a large map: a `dict` that decodes the elements when they are read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.enums import UnknownEnumeratorError
from pytest_bpfmaps.errors import BpfError, MapOverflowError
from pytest_bpfmaps.maps.elements import Elements
from pytest_bpfmaps.maps.snapshot import Snapshot

Decoders = tuple[Callable[[bytes], Any], Callable[[bytes, int], list[Any]]]
"""(decodes one value, decodes many packed values)."""

LAZY_FROM = 512  # elements; a smaller map is decoded at once
_SEARCHES = 16  # single keys that are looked up in the packed bytes; for more, making the dict is faster
_SEARCH_STEPS = 64  # finds of the bytes of a key that begin inside another key


class LazySnapshot(Snapshot):
    """A snapshot that is still packed. It becomes a plain `Snapshot` as soon as all elements are needed.

    A snapshot of less than `lazy_from` elements becomes that at once.

    C code for `dict` may read its memory without these methods. So a packed snapshot has one element in that
    memory: `json`, for example, asks for the items only if the dict is not empty.
    """

    __slots__ = ()

    def __init__(
        self,
        elements: Elements,
        decoders: Decoders,
        *,
        origin: str,
        codec: Codec,
        value: Codec | None = None,
        lazy_from: int = LAZY_FROM,
    ) -> None:
        super().__init__({_PACKED: None}, origin=origin, codec=codec, value=value)
        self._elements = elements
        self._decode_value, self._decode_values = decoders
        self._searches = 0
        self.restarts = elements.restarts
        self.complete = elements.complete
        if elements.count < lazy_from:
            self.unpack()

    def unpack(self) -> None:
        """Decodes its elements. From then on it is a plain `Snapshot`."""
        elements, codec = self._elements, self._codec
        assert codec is not None
        values = self._decode_values(elements.values, elements.count)
        del self._elements, self._decode_value, self._decode_values
        dict.clear(self)
        self.__class__ = Snapshot  # type: ignore[assignment]
        self._take(elements.keys, values)

    def _position(self, key: Any) -> int | None:
        """Returns the index of the key, or -1 if it is missing; None if only a dict can find it."""
        codec = self._codec
        assert codec is not None
        self._searches += 1
        if not codec.exact or not codec.size or self._searches > _SEARCHES:
            return None
        try:
            raw = codec.encode(key, "key")
        except MapOverflowError:
            return -1
        except UnknownEnumeratorError as e:
            e.warn()
            return -1
        except BpfError:
            return None  # for example 1.0, which equals 1 in a dict
        keys, at = self._elements.keys, -1
        for _ in range(_SEARCH_STEPS):
            at = keys.find(raw, at + 1)
            if at < 0 or at % len(raw) == 0:
                return at // len(raw)
        return None

    def __getitem__(self, key: Any) -> Any:
        at = self._position(key)
        if at is None:
            self.unpack()
            return self[key]
        if at < 0:
            raise KeyError(key)
        elements = self._elements
        size = len(elements.values) // elements.count
        return self._decode_value(elements.values[at * size : (at + 1) * size])

    def __contains__(self, key: object) -> bool:
        at = self._position(key)
        if at is None:
            self.unpack()
            return key in self
        return at >= 0

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __eq__(self, other: object) -> bool:
        if self._has_bytes_of(other):
            return True
        self.unpack()
        return self == other

    def _has_bytes_of(self, other: Any) -> bool:
        """Returns whether `other`, the map or a packed snapshot of it, has the same bytes in the same
        order.
        """
        seen = self._taken(other)
        if not isinstance(seen, LazySnapshot):
            return False
        mine, theirs = self.packed, seen.packed
        if mine.keys != theirs.keys or mine.values != theirs.values:
            return False
        values = [self._decode_values(mine.values, mine.count) for _ in range(2)]
        return all(map(operator.eq, *values))  # false for NaN, which does not equal itself

    @property
    def packed(self) -> Elements:
        """Its elements as bytes."""
        return self._elements

    def __len__(self) -> int:
        return self._elements.count

    def __iter__(self) -> Iterator[Any]:
        if self._codec is None or not self._codec.exact:
            self.unpack()
            return iter(self)
        return iter(self._codec.decode_all(self._elements.keys))

    def canonical(self, key: Any) -> Any:
        return key  # a lookup encodes the key itself


class _Packed:
    def __repr__(self) -> str:
        return "<elements that are not decoded yet>"


_PACKED = _Packed()


def _filling(name: str) -> Any:
    def method(self: LazySnapshot, *args: Any, **options: Any) -> Any:
        self.unpack()
        return getattr(self, name)(*args, **options)

    method.__name__ = name
    method.__doc__ = getattr(Snapshot, name).__doc__
    return method


for _name in (
    *("keys", "values", "items", "pop", "popitem", "setdefault", "update", "clear", "copy"),
    *("__setitem__", "__delitem__", "__le__", "__or__", "__ror__", "__ior__"),
    *("__reversed__", "__repr__", "__reduce_ex__", "alike", "mapped", "has"),
    *("_has", "_holds_all"),
):
    setattr(LazySnapshot, _name, _filling(_name))
