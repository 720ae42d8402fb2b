"""A C array as a Python list. The list is a copy, so changing it is an error."""

from __future__ import annotations

from typing import Any, NoReturn

from pytest_bpfmaps.btf.enumerator import equal_with_hash
from pytest_bpfmaps.errors import MapTypeError


class Values(list[Any]):
    """The elements of a C array: a `list` that can't be changed, because the kernel would not see the change.

    It is hashable like a tuple, and equal to a list or tuple of the same values.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple):  # a tuple has a hash, which must be equal, too
            return len(self) == len(other) and all(map(equal_with_hash, self, other))
        return list.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return list, (list(self),)

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        raise MapTypeError(
            "cannot change",
            on="the elements of an array that was read",
            why="they are a copy, and the kernel would not see it",
            fix="change a list and write that: values = list(m[key]); values[1] = 5; m[key] = values "
            "(a global variable: obj.globals.name = values)",
        )

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse
