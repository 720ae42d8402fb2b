"""Reads the release of the running kernel, and whether its CPU is emulated."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

EMULATED_SCALE = 10.0
"""The factor by which deadlines are longer on an emulated machine."""


def release() -> str:
    """Returns the release as ``uname -r`` prints it."""
    return os.uname().release


def version(text: str | None = None) -> tuple[int, int, int]:
    """Returns the first three numbers of a release (default: this kernel's): (6, 1, 0)."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text or release())
    if not found:
        return (0, 0, 0)
    return int(found[1]), int(found[2]), int(found[3] or 0)


@cache
def is_emulated() -> bool:
    """Returns whether the CPU is QEMU's software emulation (TCG).

    The name of such a CPU has ``TCG`` in it.
    """
    try:
        return "TCG" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def timeout_scale() -> float:
    """Returns the factor by which deadlines are longer on this machine."""
    return EMULATED_SCALE if is_emulated() else 1.0


def shown_timeout(seconds: float) -> str:
    """Returns a timeout for a message. It says if deadlines are longer on this machine, and why."""
    text = f"{seconds:g} s"
    scale = timeout_scale()
    if scale == 1 or not seconds:
        return text
    return f"{text} (as the CPU is emulated, {seconds * scale:g} s)"
