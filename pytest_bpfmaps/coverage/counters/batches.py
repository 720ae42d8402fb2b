"""Divides objects so that one run of llvm-cov serves many: its start takes longer than its work.

A profile knows a function by its name alone, and llvm-cov adds up what several objects say of a file. So
objects of one batch have no name of a function and no file in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Measured(Protocol):
    """An object with counters."""

    @property
    def identities(self) -> Set[str]:
        """The names of its functions, and the paths of its files with code."""
        ...


T = TypeVar("T", bound=Measured)


@dataclass
class _Batch(Generic[T]):
    members: list[T] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)


def divide(objects: Iterable[T], most: int) -> list[list[T]]:
    """Returns the objects in batches of at most `most`, in which no two have anything in common."""
    batches: list[_Batch[T]] = []
    for each in objects:
        fitting = (
            one for one in batches if len(one.members) < most and one.taken.isdisjoint(each.identities)
        )
        batch = next(fitting, None)
        if batch is None:
            batches.append(batch := _Batch())
        batch.members.append(each)
        batch.taken |= each.identities
    return [batch.members for batch in batches]
