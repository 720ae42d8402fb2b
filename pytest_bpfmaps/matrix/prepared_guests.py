"""Guests that were started before the run, for ``--bpf-watch``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_bpfmaps.vm.gateway import relay


class Prepared:
    """Guests that wait. `waiting` maps the arguments of a start to the guests that have them.

    A guest is the address and the process of its gateway. `wanted` are the arguments of the guests that this
    run has begun, and `taken` the addresses that it used. `processes` has the gateways of these by the name
    of the worker.
    """

    def __init__(self, waiting: dict[tuple[str, ...], list[tuple[str, int]]]) -> None:
        self._waiting = waiting
        self.processes: dict[str, int] = {}
        self.wanted: list[list[str]] = []
        self.taken: list[str] = []

    def command(self, worker: str, start: Sequence[str], more: Sequence[str]) -> list[str] | None:
        """Returns a command that reaches a guest which was started with `start`, and gives it `more`.

        It becomes the guest of `worker`. Returns None if no such guest waits.
        """
        guests = self._waiting.get(tuple(start))
        if not guests:
            return None
        address, self.processes[worker] = guests.pop(0)
        self.taken.append(address)
        return [sys.executable, "-I", "-S", str(Path(relay.__file__)), address, *start, *more]

    def note(self, start: Sequence[str]) -> None:
        """Notes that this run starts a guest with these arguments."""
        self.wanted.append(list(start))


PREPARED: pytest.StashKey[Prepared] = pytest.StashKey()
