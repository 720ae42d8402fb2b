"""The kernel that runs this process: release, emulation."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

EMULATED_SCALE = 10.0
"""How many times slower than a real machine an emulated one is taken to be, for deadlines."""


def release() -> str:
    """As ``uname -r`` prints it."""
    return os.uname().release


def version(text: str | None = None) -> tuple[int, int, int]:
    """The numbers at the start of a release (default: this kernel's): ``6.1.0-51-amd64`` is (6, 1, 0)."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text or release())
    if not found:
        return (0, 0, 0)
    return int(found[1]), int(found[2]), int(found[3] or 0)


@cache
def is_emulated() -> bool:
    """Whether the CPU is QEMU's software emulation (TCG), which says so in its name."""
    try:
        return "TCG" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def timeout_scale() -> float:
    """By how much deadlines are stretched on this machine."""
    return EMULATED_SCALE if is_emulated() else 1.0
