"""What `Map.snapshot` gives: a `dict` that decodes a large map's elements when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..btf import Codec
from ..errors import BpfError, MapOverflowError
from .batch import Elements

# smaller maps are decoded at once
_LAZY_FROM = 512
# as many single keys are looked up in the packed bytes; then a dict is quicker
_SEARCHES = 16
_SEARCH_STEPS = 64


class Snapshot(dict[Any, Any]):
    """The elements of a map at one moment, as a `dict`.

    Equal to a mapping of the same keys and values, where a key may have any shape that the map takes.
    ``snapshot >= {...}`` says whether it holds those elements, and maybe more.

    `origin` names the map in messages. `restarts` and `complete`: how the reading went while programs wrote
    to the map, see `pytest_bpfmaps.maps.batch.Elements`.
    """

    __slots__ = (
        "_codec",
        "_decode_value",
        "_decode_values",
        "_elements",
        "_searches",
        "complete",
        "origin",
        "restarts",
    )

    def __init__(self, items: Any = (), *, origin: str = "", codec: Codec | None = None) -> None:
        super().__init__(items)
        self.origin = origin
        self.restarts = 0
        self.complete = True
        self._codec = codec

    def canonical(self, key: Any) -> Any:
        """The key as this snapshot has it, for one in another shape: a tuple or mapping for a record."""
        if self._codec is None or dict.__contains__(self, key):
            return key
        try:
            return self._codec.decode(self._codec.encode(key, "key"))
        except BpfError:
            return key

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        if isinstance(other, dict) and dict.__eq__(self, other):
            return True
        return len(self) == len(other) and self._holds(other)

    def __ne__(self, other: object) -> bool:
        return NotImplemented if not isinstance(other, Mapping) else not self == other

    def __ge__(self, other: object) -> bool:
        """Whether it has all elements of `other`."""
        return self._holds(other) if isinstance(other, Mapping) else NotImplemented

    def __le__(self, other: object) -> bool:
        """Whether `other` has all its elements."""
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = {self.canonical(k): v for k, v in other.items()}
        return all(k in theirs and v == theirs[k] for k, v in self.items())

    def _holds(self, other: Mapping[Any, Any]) -> bool:
        missing = object()
        for key, value in other.items():
            mine = self.get(key, missing)
            if mine is missing:
                mine = self.get(self.canonical(key), missing)
            if mine is missing or mine != value:
                return False
        return True

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def copy(self) -> dict[Any, Any]:
        """A plain `dict` with the same elements."""
        return dict(self)


class LazySnapshot(Snapshot):
    """A snapshot that is still packed. It becomes a plain `Snapshot` as soon as all is asked for.

    C code that knows `dict` may look at its memory past these methods: as long as it is packed there is one
    element in it, because `json` for example asks for the items of those that are not empty only.
    """

    __slots__ = ()

    def __init__(
        self,
        elements: Elements,
        codec: Codec,
        decode_value: Callable[[bytes], Any],
        decode_values: Callable[[bytes, int], list[Any]],
        origin: str,
    ) -> None:
        super().__init__({_PACKED: None}, origin=origin, codec=codec)
        self._elements = elements
        self._decode_value = decode_value
        self._decode_values = decode_values
        self._searches = 0
        self.restarts = elements.restarts
        self.complete = elements.complete

    def _fill(self) -> None:
        elements, codec = self._elements, self._codec
        assert codec is not None
        values = self._decode_values(elements.values, elements.count)
        keys = codec.decode_all(elements.keys)
        dict.clear(self)
        dict.update(self, zip(keys, values, strict=True))
        del self._elements, self._decode_value, self._decode_values
        self.__class__ = Snapshot  # type: ignore[assignment]

    def _position(self, key: Any) -> int | None:
        """Where the key's bytes are, -1 for nowhere; None when only a dict can tell."""
        codec = self._codec
        assert codec is not None
        self._searches += 1
        if not codec.exact or not codec.size or self._searches > _SEARCHES:
            return None
        try:
            raw = codec.encode(key, "key")
        except MapOverflowError:
            return -1
        except BpfError:
            return None  # 1.0 for example, which a dict takes for 1
        keys, at = self._elements.keys, -1
        for _ in range(_SEARCH_STEPS):
            at = keys.find(raw, at + 1)
            if at < 0 or at % len(raw) == 0:
                return at // len(raw)
        return None

    def __getitem__(self, key: Any) -> Any:
        at = self._position(key)
        if at is None:
            self._fill()
            return self[key]
        if at < 0:
            raise KeyError(key)
        elements = self._elements
        size = len(elements.values) // elements.count
        return self._decode_value(elements.values[at * size : (at + 1) * size])

    def __contains__(self, key: object) -> bool:
        at = self._position(key)
        if at is None:
            self._fill()
            return key in self
        return at >= 0

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __len__(self) -> int:
        if self._codec is None or not self._codec.exact:  # different bytes may be equal keys
            self._fill()
            return len(self)
        return self._elements.count

    def __iter__(self) -> Iterator[Any]:
        if self._codec is None or not self._codec.exact:
            self._fill()
            return iter(self)
        return iter(self._codec.decode_all(self._elements.keys))

    def canonical(self, key: Any) -> Any:
        return key  # looking a key up encodes it


class _Packed:
    def __repr__(self) -> str:
        return "<elements that are not decoded yet>"


_PACKED = _Packed()


def _filling(name: str) -> Any:
    def method(self: LazySnapshot, *args: Any, **options: Any) -> Any:
        self._fill()
        return getattr(self, name)(*args, **options)

    method.__name__ = name
    method.__doc__ = getattr(dict, name).__doc__
    return method


for _name in (
    *("keys", "values", "items", "pop", "popitem", "setdefault", "update", "clear", "copy"),
    *("__setitem__", "__delitem__", "__eq__", "__ne__", "__le__", "__or__", "__ror__", "__ior__"),
    *("__reversed__", "__repr__", "__reduce_ex__"),
):
    setattr(LazySnapshot, _name, _filling(_name))


def make_snapshot(
    elements: Elements,
    codec: Codec,
    decode_value: Callable[[bytes], Any],
    decode_values: Callable[[bytes, int], list[Any]],
    origin: str,
) -> Snapshot:
    """The elements as a `Snapshot`, lazily where there are many."""
    made = LazySnapshot(elements, codec, decode_value, decode_values, origin)
    if elements.count < _LAZY_FROM:
        made._fill()
    return made
