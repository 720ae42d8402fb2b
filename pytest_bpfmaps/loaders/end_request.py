"""Asks processes to end, and asks again where one has probably lost the signal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

from pytest_bpfmaps.loaders.process_tree import ProcessStat, send_signal

_LOSES_SIGNALS = "bpftrace"
"""The name of processes that lose a signal now and then: bpftrace 0.17.

It waits for events again and again, for 0.1 seconds each time. It looks whether there was a signal only
when one interrupted a wait. A signal that arrives between two waits is lost. Of 100 signals in an emulated
guest, 3 were.
"""

_IDLE = 5.0  # seconds that a process idles before it gets the signal again
_LEAST_WORK = 0.1  # the share of a CPU that a process uses if it does not idle


class EndRequest:
    """SIGTERM for processes. It remembers which have got it, and when."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, int], tuple[float, int]] = {}

    def send(self, to: Iterable[ProcessStat]) -> None:
        """Sends SIGTERM to those that have not got it yet."""
        for each in to:
            if _key(each) not in self._told:
                self._tell(each)

    def send_until_heard(self, to: list[ProcessStat]) -> None:
        """Sends SIGTERM to those that have not got it yet, or that may have lost it."""
        self.send(to)
        self.repeat(to)

    def repeat_to_bpftrace(self, to: list[ProcessStat]) -> None:
        """Sends it again to those that are known to lose signals, and may have lost it."""
        self.repeat(each for each in to if each.name == _LOSES_SIGNALS)

    def repeat(self, to: Iterable[ProcessStat]) -> None:
        """Sends it again to those that got it and have idled for `_IDLE` seconds since.

        One that works does not get it again: many programs end at once on a second signal, and leave behind
        what they were removing.
        """
        for each in to:
            since, ticks = self._told.get(_key(each), (None, 0))
            if since is None or (passed := time.monotonic() - since) < _IDLE:
                continue
            worked = (each.ticks - ticks) / os.sysconf("SC_CLK_TCK")
            if each.state == "S" and worked < passed * _LEAST_WORK:
                self._tell(each)
            else:
                self._told[_key(each)] = (time.monotonic(), each.ticks)

    def _tell(self, each: ProcessStat) -> None:
        self._told[_key(each)] = (time.monotonic(), each.ticks)
        send_signal(each, signal.SIGTERM)


def kill_all(processes: list[ProcessStat]) -> None:
    """Sends them SIGKILL."""
    for each in processes:
        send_signal(each, signal.SIGKILL)


def _key(each: ProcessStat) -> tuple[int, int]:
    return each.pid, each.started
