"""Members of an enum that equal their number and their name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from enum import IntEnum

from pytest_bpfmaps.errors import UnknownNameWarning, closest


class Enumerator(IntEnum):
    """A member that equals its number and every name of that number.

    A text that names no member is unequal, because ``!=`` would hide a misspelt name. The comparison then
    warns with an `UnknownNameWarning`, which has the closest names. The hash is the number's: a set or a dict
    finds members and numbers, but no texts.
    """

    # there are no other methods, because C may give a member their names
    def __eq__(self, other: object) -> bool:
        return _is_called(self, other) if isinstance(other, str) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not _is_called(self, other) if isinstance(other, str) else int.__ne__(self, other)

    __hash__ = int.__hash__


def equal_with_hash(value: object, other: object) -> bool:
    """Returns whether two values are equal and have the same hash.

    A member and its name have different hashes.
    """
    return not (isinstance(other, str) and isinstance(value, IntEnum)) and bool(value == other)


def _is_called(member: IntEnum, name: str) -> bool:
    names = type(member).__members__
    if name in names:
        return names[name] is member
    warn_of_name(name, type(member).__name__, names)
    return False


def warn_of_name(name: str, where: str, names: Iterable[str]) -> None:
    """Warns that a value of the enum `where` is compared with a text that is none of its names."""
    said = f"a value of {where} is compared with {name!r}, which is none of its names: {closest(name, names)}"
    warnings.warn(said, UnknownNameWarning, stacklevel=depth())


def depth() -> int:
    """Returns the `stacklevel` of a warning: the number of calls up to the code that called this package."""
    ours = ("pytest_bpfmaps.", "collections.abc")  # collections.abc compares views of a map
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(ours):
        level, frame = level + 1, frame.f_back
    return level
