"""Processes that this one starts: they can't outlive it, and they may have to wait for a processor."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Has the kernel kill this process when `parent`, which started it, ends in any way: prctl(2)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)


def waited_for_processor(pid: int) -> float:
    """Returns the seconds that a thread of process `pid` was ready to run without a processor, at most."""
    waited = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            waited = max(waited, int(thread.read_text().split()[1]))
        except (OSError, LookupError, ValueError):  # the thread has ended, or this kernel does not count
            continue
    return waited / 1e9


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends in any way."""
    die_with(os.getppid())


def is_stopped(pid: int) -> bool:
    """Returns whether a signal or a debugger has stopped the process `pid`."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, LookupError):  # it has ended
        return False


def stopped_process(group: int) -> int | None:
    """Returns a process of a process group that a signal or a debugger has stopped; None if all may run."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]  # proc_pid_stat(5)
        except (OSError, ValueError):  # the process has ended
            continue
        if int(its_group) == group and state in "Tt":
            return int(path.parent.name)
    return None
