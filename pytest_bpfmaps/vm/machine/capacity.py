"""How many guests this machine carries at a time."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_bpfmaps.errors import VmError

# An emulated guest keeps one processor busy, and waits now and then for its files: two for each lose nothing.
PER_CPU = 2
_UNITS = {"": 20, "K": 10, "M": 20, "G": 30, "T": 40}  # QEMU's -m counts in megabytes


def guests_at_once(wanted: int, memory: str) -> int:
    """`wanted`, or where that is 0 what processors and free memory allow with `memory` for each, but one.

    Raises VmError for a size that QEMU would not take.
    """
    if wanted:
        return max(wanted, 1)
    processors = len(os.sched_getaffinity(0)) * PER_CPU
    return max(1, min(processors, free_memory() // size(memory)))


def size(memory: str) -> int:
    """A size as QEMU takes it, ``512M``, in bytes. Raises VmError."""
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
    """Bytes that processes may still take without swapping: proc_meminfo(5), and this cgroup's limit."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        return min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):  # no cgroup of its own, or "max"
        return free
