"""Finds a process, its children and theirs, also those that went into the background."""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_MARKED = b"Max realtime timeout"
"""The limit that marks a process and all its descendants, as ``/proc/PID/limits`` calls it: RLIMIT_RTTIME.

A child has its parent's limits, also with a session of its own, without its parent, and with an environment
of its own. The marks are more than 30,000 years, so none is ever reached. Source: getrlimit(2).
"""
_LEAST_MARK = 1 << 60  # microseconds

_STAT = 2048  # bytes, more than the kernel writes
# how often /proc is read: a look can miss a child that starts meanwhile, and then the parent may be gone
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """A part of ``/proc/PID/stat``.

    `started` is in clock ticks since boot; `pid` with it is unique. `ticks` is its CPU time, in clock ticks.
    """

    pid: int
    name: str
    state: str
    parent: int
    session: int
    started: int
    ticks: int

    @property
    def runs(self) -> bool:
        """Whether it has not ended. A zombie has: it is only an exit status that nobody has asked for yet."""
        return self.state not in "ZX"

    @property
    def is_stopped(self) -> bool:
        """Whether a signal (SIGSTOP) or a debugger has stopped it."""
        return self.state in "Tt"

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"


def process_stat(pid: int | str) -> ProcessStat | None:
    """Returns the state of a process; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = (file.read(_STAT) or b"").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, rest = text.rpartition(") ")
    number, _, name = head.partition(" (")
    fields = rest.split()
    if not fields:  # it ended between the two calls
        return None
    parent, session, user, system, started = (int(fields[at]) for at in (1, 3, 11, 12, 19))
    return ProcessStat(int(number), name, fields[0], parent, session, started, user + system)


class ProcessTree:
    """A process and its descendants. `mark` is what `set_mark` was given in the process, or None.

    A descendant is found by its parent, by its session, or by the mark. Once found, it stays known, so it is
    also found after its parent has ended.
    """

    def __init__(self, pid: int, mark: int | None = None) -> None:
        self.pid = pid
        self.mark = mark
        first = process_stat(pid)
        self._started = first.started if first else 0
        self._known = {(pid, self._started)}

    @property
    def started(self) -> int:
        """When the process was started, in clock ticks since boot."""
        return self._started

    def members(self) -> list[ProcessStat]:
        """Returns those that run now, the first process first."""
        for _ in range(_LOOKS):
            running = self._look()
            if running or not self._known:
                return running
        self._known.clear()
        return []

    def _look(self) -> list[ProcessStat]:
        found = {each.pid: each for each in _later_than(self._started)}
        inside = {pid for pid, started in self._known if pid in found and found[pid].started == started}
        outside = [each for each in found.values() if each.pid not in inside]
        grew = True
        while grew:
            fresh = [each for each in outside if self._belongs(each, inside)]
            outside = [each for each in outside if each not in fresh]
            inside.update(each.pid for each in fresh)
            grew = bool(fresh)
        self._known |= {(pid, found[pid].started) for pid in inside}
        running = [found[pid] for pid in inside if found[pid].runs]
        return sorted(running, key=lambda each: (each.pid != self.pid, each.started, each.pid))

    def _belongs(self, each: ProcessStat, inside: set[int]) -> bool:
        if each.parent in inside:
            return True
        if self.mark is None or not each.runs:
            return False
        return each.session == self.pid or _mark_of(each.pid) == self.mark


def send_signal(to: ProcessStat, number: int) -> None:
    """Sends a signal to that process, and to no later one with the same id. Does nothing if it has ended."""
    with _pidfd(to) as pidfd, suppress(ProcessLookupError):
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, number)


def wait_for_end_of(process: ProcessStat, seconds: float) -> None:
    """Sleeps until the process ends, for at most `seconds`. Source: pidfd_open(2)."""
    with _pidfd(process) as pidfd:
        if pidfd is not None:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(max(1, int(seconds * 1000)))


@contextmanager
def _pidfd(process: ProcessStat) -> Iterator[int | None]:
    """Opens a descriptor of that process; None if it has ended, also if a later one has its id."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        now = process_stat(process.pid)
        yield pidfd if now is not None and now.started == process.started else None
    finally:
        os.close(pidfd)


def _later_than(started: int) -> Iterator[ProcessStat]:
    """Yields the processes that were started then or later."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = process_stat(name)
            if found is not None and found.started >= started:
                yield found


def new_mark() -> int:
    """Returns a mark that no other process has, for `set_mark`."""
    return _LEAST_MARK | int.from_bytes(os.urandom(7))


def set_mark(mark: int) -> None:
    """Marks this process and its descendants. Without root, a limit that is lower than all marks stays."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_RTTIME, (mark, resource.RLIM_INFINITY))


def _mark_of(pid: int) -> int | None:
    try:
        limits = Path(f"/proc/{pid}/limits").read_bytes()
    except OSError:  # it has ended
        return None
    soft = limits.partition(_MARKED)[2].split(None, 1)[:1]
    return int(soft[0]) if soft and soft[0].isdigit() else None
