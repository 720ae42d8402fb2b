"""Guests that were started before the run, for ``--bpf-watch``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_bpfmaps.vm.gateway import relay


class Prepared:
    """Guests that wait. `waiting` maps the arguments of a start to the addresses of guests that have them.

    `wanted` are the arguments of the guests that this run has begun, and `taken` the addresses that it used.
    """

    def __init__(self, waiting: dict[tuple[str, ...], list[str]]) -> None:
        self._waiting = waiting
        self.wanted: list[list[str]] = []
        self.taken: list[str] = []

    def command(self, start: Sequence[str], more: Sequence[str]) -> list[str] | None:
        """Returns a command that reaches a guest which was started with `start`, and gives it `more`.

        None where none waits.
        """
        addresses = self._waiting.get(tuple(start))
        if not addresses:
            return None
        self.taken.append(addresses.pop(0))
        return [sys.executable, "-I", "-S", str(Path(relay.__file__)), self.taken[-1], *start, *more]

    def note(self, start: Sequence[str]) -> None:
        """Notes that a guest which begins so would have been of use."""
        self.wanted.append(list(start))


PREPARED: pytest.StashKey[Prepared] = pytest.StashKey()
