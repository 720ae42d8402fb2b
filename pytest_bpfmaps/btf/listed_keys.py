"""Keys whose bytes are not those that writing their value gives: padding is set, or bytes after a NUL.

The kernel compares keys byte by byte, so it does not find such an element by the plain value. A map lists
such a key as a `Listed`, which knows its bytes. It equals a key with the same bytes and nothing else. So
``key in list(m)`` agrees with ``key in m``, no element gets lost in a `dict`, and ``m[key]`` finds the
element of a key that was listed. All other keys are listed as plain values.
"""

from __future__ import annotations

from typing import Any, Self

from pytest_bpfmaps.btf.array_values import Values

_SHOWN = 16  # bytes


class Listed:
    """The base of keys that know their bytes."""

    __slots__ = ()

    __raw__: bytes
    """The bytes that the kernel has."""
    __note__: str
    """The bytes that the value does not show, as text; `repr` ends in it."""


def odd_note(raw: bytes, odd: int) -> str:
    """Returns the text for the bytes of `raw` that have a bit of `odd`, from the first to the last."""
    places = [at for at in range(len(raw)) if odd >> at * 8 & 0xFF]
    if not places:
        return ""
    first, last = places[0], places[-1]
    where = f"byte {first}" if first == last else f"bytes {first} to {last}"
    more = "…" if last - first >= _SHOWN else ""
    return f" <{where}: {raw[first : last + 1][:_SHOWN].hex()}{more}>"


def _same(self: Any, other: object) -> bool:
    return isinstance(other, Listed) and self.__raw__ == other.__raw__


def _different(self: Any, other: object) -> bool:
    return not _same(self, other)


def _listed_class(name: str, base: Any, doc: str) -> Any:
    """Makes an immutable subclass of a plain type, whose instances know their bytes."""

    def new(cls: Any, value: Any, raw: bytes, note: str) -> Any:
        made = base.__new__(cls, value)
        made.__raw__, made.__note__ = raw, note
        return made

    body = {
        "__new__": new,
        "__eq__": _same,
        "__ne__": _different,
        "__hash__": lambda self: hash(self.__raw__),
        "__repr__": lambda self: base.__repr__(self) + self.__note__,
        "__copy__": lambda self: self,
        "__deepcopy__": lambda self, memo: self,
        "__reduce_ex__": lambda self, protocol: (type(self), (base(self), self.__raw__, self.__note__)),
        "__doc__": doc,
    }
    return type(name, (Listed, base), body)


ListedText = _listed_class("ListedText", str, "A text that knows the bytes after its NUL.")
ListedFloat = _listed_class("ListedFloat", float, "A number that knows its bytes: 0.0 and -0.0 are equal.")
_ListedNumber = _listed_class("_ListedNumber", int, "")


class ListedBool(_ListedNumber):  # type: ignore[misc, valid-type]
    """A ``_Bool``. Python's `bool` can't have subclasses, so this is an int that prints as one."""

    def __new__(cls, value: bool, raw: bytes, note: str) -> Self:
        return _ListedNumber.__new__(cls, int(value), raw, note)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{bool(self)}{self.__note__}"

    def __str__(self) -> str:
        return str(bool(self))


class ListedValues(Listed, Values):
    """An array that knows its bytes."""

    __slots__ = ("__note__", "__raw__")

    def __init__(self, values: list[Any], raw: bytes, note: str) -> None:
        super().__init__(values)
        self.__raw__, self.__note__ = raw, note

    __eq__ = _same
    __ne__ = _different

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.__raw__)

    def __repr__(self) -> str:
        return super().__repr__() + self.__note__

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (list(self), self.__raw__, self.__note__)
