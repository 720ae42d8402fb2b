"""The result of `Map.snapshot`: a `dict` that decodes a large map's elements when they are read."""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.array_values import Values
from pytest_bpfmaps.btf.comparison import same
from pytest_bpfmaps.btf.enums import UnknownEnumeratorError
from pytest_bpfmaps.btf.listed_keys import Listed
from pytest_bpfmaps.errors import BpfError, MapKeyError, MapOverflowError, MapValueError
from pytest_bpfmaps.maps.elements import Elements
from pytest_bpfmaps.maps.equal_keys import ADVICE, describe, odd_keys
from pytest_bpfmaps.maps.views import Items, Keys

Decoders = tuple[Callable[[bytes], Any], Callable[[bytes, int], list[Any]]]
"""(decodes one value, decodes many packed values)."""

# smaller maps are decoded at once
_LAZY_FROM = 512
# so many single keys are looked up in the packed bytes; for more, making the dict is faster
_SEARCHES = 16
_SEARCH_STEPS = 64


class Snapshot(dict[Any, Any]):
    """The elements of a map at one moment, as a `dict`.

    It equals a mapping of the same keys and values. A key may have any form that the map takes, also in a
    lookup. ``snapshot >= {...}`` says whether it has those elements, and maybe more.

    `origin` is the map's name in messages, `value` is the type of its values. `restarts` and `complete` say
    how programs disturbed the reading; see `pytest_bpfmaps.maps.elements.Elements`.
    """

    __slots__ = (
        "_codec",
        "_decode_value",
        "_decode_values",
        "_elements",
        "_odd",
        "_searches",
        "complete",
        "origin",
        "restarts",
        "value",
    )

    def __init__(
        self, items: Any = (), *, origin: str = "", codec: Codec | None = None, value: Codec | None = None
    ) -> None:
        super().__init__(items)
        self.origin = origin
        self.value = value
        self.restarts = 0
        self.complete = True
        self._codec = codec
        self._odd: dict[Any, list[Any]] = {}

    @classmethod
    def of(cls, keys: bytes, values: list[Any], origin: str, codec: Codec) -> Snapshot:
        """Makes a snapshot from packed keys, and the value of each."""
        made = Snapshot(origin=origin, codec=codec)
        made._take(keys, values)
        return made

    def _take(self, keys: bytes, values: list[Any]) -> None:
        codec = self._codec
        assert codec is not None
        dict.update(self, zip(codec.listed_all(keys), values, strict=True))
        self._mark(odd_keys(codec, dict.__iter__(self)))

    def _mark(self, odd: dict[Any, list[Any]]) -> None:
        self._odd = odd
        self.__class__ = OddSnapshot if odd else Snapshot

    def mapped(self, how: Callable[[Any], Any], origin: str) -> Snapshot:
        """Returns a snapshot of the same keys, with `how` applied to each value."""
        made = Snapshot({k: how(v) for k, v in self.items()}, origin=origin, codec=self._codec)
        made._mark(self._odd)
        return made

    @property
    def has_odd_keys(self) -> bool:
        """Whether some of its keys are no plain values; see `Listed`."""
        return bool(self._odd)

    def plain(self, key: Any) -> Any:
        """Returns one of its keys as a plain value, as in other mappings."""
        codec = self._codec
        return codec.decode(codec.clean(key.__raw__)) if codec and isinstance(key, Listed) else key

    def alike(self, key: Any) -> list[Any]:
        """Returns its keys that look like `key`, if `key` is not the only one; see `Listed`."""
        return []

    def explain_alike(self, key: Any) -> str:
        """Returns a sentence about its keys that look like `key`, with the bytes that differ."""
        raw = self._raw(key)
        raws = [self._raw(k) for k in self.alike(key)]
        return describe(raws, b"" if raw in raws else raw)

    def _raw(self, key: Any) -> bytes:
        assert self._codec is not None
        return key.__raw__ if isinstance(key, Listed) else self._codec.encode(key, "key")

    def canonical(self, key: Any) -> Any:
        """Returns the key as this snapshot has it, for a key in any form, such as a tuple for a record."""
        codec = self._codec
        if codec is None or isinstance(key, Listed) or (codec.exact and dict.__contains__(self, key)):
            return key
        try:
            return codec.listed(codec.encode(key, "key"))
        except UnknownEnumeratorError as e:
            e.warn()
            return key
        except BpfError:
            return key

    def __missing__(self, key: Any) -> Any:
        other = self.canonical(key)
        if other is not key and dict.__contains__(self, other):
            return dict.__getitem__(self, other)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, self.canonical(key))

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def keys(self) -> Keys:  # type: ignore[override]
        """Returns its keys; ``in`` takes a key in any form that the map takes."""
        return Keys(self, self.has_only)

    def items(self) -> Items:  # type: ignore[override]
        """Returns its elements; ``in`` takes a key in any form that the map takes."""
        return Items(self, self.value)

    def __eq__(self, other: object) -> bool:
        if (seen := self._same_keys(other)) is not None and len(self) == len(seen) and self._holds_all(seen):
            return True
        if not isinstance(other, Mapping):
            return NotImplemented  # a map keeps what it compared, for the report
        if seen is not None:
            return False
        # a record equals another one with other bytes in its padding, which is another key for the kernel
        plain = self._codec is None or self._codec.exact
        if plain and isinstance(other, dict) and dict.__eq__(self, other):
            return True
        return self.has_only(other) and self._holds(other)

    def __ne__(self, other: object) -> bool:
        fits = self.__eq__(other)
        return fits if fits is NotImplemented else not fits

    def __ge__(self, other: object) -> bool:
        """Returns whether it has all elements of `other`."""
        if not isinstance(other, Mapping):
            return NotImplemented
        if (seen := self._same_keys(other)) is not None:
            return self._holds_all(seen) and not (self._odd and self.alike_besides(seen))
        return self._holds(other) and not (self._odd and self.alike_besides(other))

    def __le__(self, other: object) -> bool:
        """Returns whether `other` has all its elements."""
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = self._same_keys(other)
        if theirs is not None and dict.items(self) <= dict.items(theirs):
            return True
        if theirs is None:
            theirs = {self.canonical(k): v for k, v in other.items()}
        return all(k in theirs and same(self.value, v, theirs[k]) for k, v in self.items())

    def has_only(self, keys: Iterable[Any]) -> bool:
        """Returns whether these keys mean all its elements, each a different one."""
        found = list(keys)
        return len(self) == len(found) == len({self.canonical(key) for key in found})

    def _same_keys(self, other: Any) -> dict[Any, Any] | None:
        """Returns the elements of `other`, if it is the same map, or a packed snapshot of that; else None.

        Their keys have the form that they have here, so none of them has to be encoded to be found. This is
        not certain for a snapshot that is no longer packed: a test may have added other keys.
        """
        seen = self._taken(other)
        if isinstance(seen, LazySnapshot):
            seen.unpack()
            return seen
        return seen if seen is not other else None

    def _taken(self, other: Any) -> Snapshot | None:
        """Returns a snapshot of the same map, if `other` is one or is the map itself; else None."""
        take = None if isinstance(other, dict) else getattr(other, "snapshot", None)
        seen = take() if callable(take) else other
        return seen if isinstance(seen, Snapshot) and seen.of_map(self._codec) else None

    def of_map(self, codec: Codec | None) -> bool:
        """Returns whether `codec` is that of its map's keys."""
        return codec is not None and self._codec is codec

    def _holds_all(self, seen: dict[Any, Any]) -> bool:
        """Returns whether it has all these elements, whose keys have the form that they have here."""
        elements = dict.items(seen)
        return elements <= dict.items(self) or all(self._has(key, value) for key, value in elements)

    def _holds(self, other: Mapping[Any, Any]) -> bool:
        return all(self.has(key, value) for key, value in other.items())

    def alike_besides(self, keys: Iterable[Any]) -> bool:
        """Returns whether it has a key that looks like one of these, and is none of them."""
        own = {self.canonical(key) for key in keys}
        return any(k not in own for key in own for k in self.alike(key))

    def has(self, key: Any, value: Any) -> bool:
        """Returns whether it has that element."""
        return self._has(self.canonical(key), value)

    def _has(self, own: Any, value: Any) -> bool:
        if not dict.__contains__(self, own):
            return False
        found = dict.__getitem__(self, own)
        return found is value or same(self.value, found, value)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, ({_hashable(key): value for key, value in self.items()},)

    def copy(self) -> dict[Any, Any]:
        """Returns a plain `dict` with the same elements."""
        return dict(self)


def _hashable(key: Any) -> Any:
    """Returns a key whose copy is hashable, too: the copy of an array's values is a list."""
    return tuple(map(_hashable, key)) if type(key) is Values else key


class OddSnapshot(Snapshot):
    """A snapshot in which some keys are no plain values; see `Listed`.

    A key from its iteration finds its own element. A plain value that looks like such a key is refused.
    """

    __slots__ = ()

    def alike(self, key: Any) -> list[Any]:
        plain = self.canonical(key)
        try:
            odd = [] if isinstance(plain, Listed) else self._odd.get(plain, [])
        except TypeError:  # unhashable
            return []
        odd = [k for k in odd if dict.__contains__(self, k)]
        return [plain, *odd] if odd and dict.__contains__(self, plain) else odd

    def __getitem__(self, key: Any) -> Any:
        if not self.alike(key):
            return super().__getitem__(key)
        on, why = f"in {self.origin}", self.explain_alike(key)
        if key in self:
            what = f"cannot decide which element of {key!r} is meant"
            raise MapValueError(what, on=on, why=why, fix=ADVICE)
        raise MapKeyError(f"no key {key!r}", on=on, why=why, fix=ADVICE, errno=errno.ENOENT)


class LazySnapshot(Snapshot):
    """A snapshot that is still packed. It becomes a plain `Snapshot` as soon as all elements are needed.

    A snapshot of few elements becomes that at once.

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
    ) -> None:
        super().__init__({_PACKED: None}, origin=origin, codec=codec, value=value)
        self._elements = elements
        self._decode_value, self._decode_values = decoders
        self._searches = 0
        self.restarts = elements.restarts
        self.complete = elements.complete
        if elements.count < _LAZY_FROM:
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
