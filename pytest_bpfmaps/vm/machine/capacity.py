"""Tells how many guests this machine can run at a time."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_bpfmaps.errors import VmError

# An emulated guest keeps one processor busy, and sometimes waits for its files. Two guests for each processor
# lose no time.
PER_CPU = 2
_UNITS = {"": 20, "K": 10, "M": 20, "G": 30, "T": 40}  # QEMU's -m counts in megabytes


def guests_at_once(wanted: int, memory: str) -> int:
    """Returns `wanted`, or, when that is 0, how many guests processors and free memory allow (at least 1).

    A guest has `memory`. Raises VmError for a size that QEMU would not take.
    """
    if wanted:
        return max(wanted, 1)
    processors = len(os.sched_getaffinity(0)) * PER_CPU
    return max(1, min(processors, free_memory() // size(memory)))


def size(memory: str) -> int:
    """Returns the bytes of a size as QEMU takes it, ``512M``. Raises VmError for another text."""
    parsed = re.fullmatch(r"(\d+)([KMGT]?)B?", memory.strip().upper())
    if parsed is None or not int(parsed[1]):
        raise VmError(
            "cannot start guests with a memory of",
            on=repr(memory),
            why="it is no size",
            fix="give a size as QEMU takes it: --bpf-vm-memory=512M, or 1G",
        )
    return int(parsed[1]) << _UNITS[parsed[2]]


def free_memory() -> int:
    """Returns the bytes that processes may take without swapping: proc_meminfo(5), the cgroup's limit."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        return min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):  # this process has no cgroup with a limit
        return free
