"""Keys as a map lists them. They know the bytes that the kernel has.

The kernel compares keys byte by byte, with their padding and with the bytes after a NUL. Two listed keys are
therefore equal only when their bytes are equal. A listed key and another object are equal when their values
are equal. So no element gets lost in a `dict`, and ``m[key]`` finds the element again.
"""

from __future__ import annotations

from typing import Any, Self

from pytest_bpfmaps.btf.array_values import Values


class Listed:
    """The base of keys that know their bytes."""

    __slots__ = ()

    __raw__: bytes
    """The bytes that the kernel has."""


def _listed_class(name: str, base: Any, doc: str) -> Any:
    """Makes an immutable subclass of a plain type, whose instances know their bytes."""

    def new(cls: Any, value: Any, raw: bytes) -> Any:
        made = base.__new__(cls, value)
        made.__raw__ = raw
        return made

    def same(self: Any, other: object) -> Any:
        if isinstance(other, Listed):
            return self.__raw__ == other.__raw__
        return base.__eq__(self, other)

    def different(self: Any, other: object) -> Any:
        equal = same(self, other)
        return equal if equal is NotImplemented else not equal

    body = {
        "__new__": new,
        "__eq__": same,
        "__ne__": different,
        "__hash__": base.__hash__,
        "__copy__": lambda self: self,
        "__deepcopy__": lambda self, memo: self,
        "__reduce_ex__": lambda self, protocol: (type(self), (base(self), self.__raw__)),
        "__doc__": doc,
    }
    return type(name, (Listed, base), body)


ListedText = _listed_class("ListedText", str, "A text that knows the bytes after its NUL.")
ListedFloat = _listed_class("ListedFloat", float, "A number that knows its bytes: 0.0 and -0.0 are equal.")
_ListedNumber = _listed_class("_ListedNumber", int, "")


class ListedBool(_ListedNumber):  # type: ignore[misc, valid-type]
    """A ``_Bool``. Python's `bool` can't have subclasses, so this is an int that prints as one."""

    def __new__(cls, value: bool, raw: bytes) -> Self:
        return _ListedNumber.__new__(cls, int(value), raw)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return repr(bool(self))

    __str__ = __repr__


class ListedValues(Listed, Values):
    """An array that knows its bytes."""

    __slots__ = ("__raw__",)

    def __init__(self, values: list[Any], raw: bytes) -> None:
        super().__init__(values)
        self.__raw__ = raw

    def __eq__(self, other: object) -> bool:
        return self.__raw__ == other.__raw__ if isinstance(other, Listed) else Values.__eq__(self, other)

    __hash__ = Values.__hash__

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (list(self), self.__raw__)
