"""Finds where the code of kernel modules is: in a guest."""

from __future__ import annotations

from pathlib import Path


def module_parts() -> list[tuple[int, int]]:
    """Returns first and last address of each loaded module: proc_modules(5). Raises OSError."""
    found = []
    for line in Path("/proc/modules").read_text().splitlines():
        _, size, _, _, _, address, *_ = line.split()
        found.append((int(address, 16), int(address, 16) + int(size)))
    return found
