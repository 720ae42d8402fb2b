"""The result of `Map.snapshot`: a `dict` that takes keys in every form that the map takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.array_values import Values
from pytest_bpfmaps.btf.comparison import same
from pytest_bpfmaps.btf.enums import UnknownEnumeratorError
from pytest_bpfmaps.btf.listed_keys import Listed
from pytest_bpfmaps.errors import BpfError, MapValueError
from pytest_bpfmaps.maps.element_errors import missing_key
from pytest_bpfmaps.maps.equal_keys import ADVICE, describe, odd_keys
from pytest_bpfmaps.maps.views import Items, Keys


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
        if unpack := getattr(seen, "unpack", None):  # a LazySnapshot
            unpack()
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
        raise missing_key(key, on, why, ADVICE)
