"""Members of an enum that equal their number and their name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from enum import IntEnum

from pytest_bpfmaps.errors import UnknownNameWarning, closest


class Enumerator(IntEnum):
    """A member equals its number and, as a text, each name that the number has.

    A text that names no member is unequal, with an `UnknownNameWarning` that has the closest names: ``!=`` is
    true of every misspelt one. The hash is the number's, so a set or dict finds members and numbers, and no
    texts.
    """

    # no methods but these: C may give a member any other name
    def __eq__(self, other: object) -> bool:
        return _is_called(self, other) if isinstance(other, str) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not _is_called(self, other) if isinstance(other, str) else int.__ne__(self, other)

    __hash__ = int.__hash__


def equal_with_hash(value: object, other: object) -> bool:
    """Whether two values are equal, and hash alike: a member and its name are equal and do not."""
    return not (isinstance(other, str) and isinstance(value, IntEnum)) and bool(value == other)


def _is_called(member: IntEnum, name: str) -> bool:
    names = type(member).__members__
    if name in names:
        return names[name] is member
    warn_of_name(name, type(member).__name__, names)
    return False


def warn_of_name(name: str, where: str, names: Iterable[str]) -> None:
    """Says that a value of the enum `where` is compared with a text that none of its names is."""
    said = f"a value of {where} is compared with {name!r}, which it never is: {closest(name, names)}"
    warnings.warn(said, UnknownNameWarning, stacklevel=_depth())


def _depth() -> int:
    """How many calls up this package was entered, for `stacklevel` of the caller."""
    ours = ("pytest_bpfmaps.", "collections.abc")  # the second, where a view of a map is compared
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(ours):
        level, frame = level + 1, frame.f_back
    return level
