"""Remembers what was found in a file, until the file changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import time_ns
from typing import Generic, TypeVar

T = TypeVar("T")
State = tuple[int, ...]

SETTLED_NS = 1_000_000_000
"""A file that changed less than this many nanoseconds ago may change again without another time of change."""
_MOST = 256  # files


def state_of(path: str | os.PathLike[str]) -> State:
    """Returns numbers that differ when the file was changed, by whatever way. Raises `OSError`.

    The change time, the third number, can't be set back by `touch -d`, `cp -p` or `tar`; the modification
    time can.
    """
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_settled(state: State) -> bool:
    """Returns whether a later change of a file in this state would show in `state_of`."""
    return state[2] < time_ns() - SETTLED_NS


class UnchangedFiles(Generic[T]):
    """What was found in files, by their paths. It is kept while the files are unchanged."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[State, T]] = {}

    def get(self, path: str, find: Callable[[], T]) -> T:
        """Returns what `find` found in the file at `path`. Calls it if the file is new or was changed.

        Raises `OSError` if there is no such file, and what `find` raises.
        """
        state = state_of(path)
        known = self._known.get(path)
        if known is not None and known[0] == state:
            return known[1]
        settled = is_settled(state)
        found = find()
        self._known.pop(path, None)
        if settled:
            if len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[path] = state, found
        return found
