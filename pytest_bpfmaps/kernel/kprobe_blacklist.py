"""Finds functions that no kprobe may be attached to, because kprobes use them themselves."""

from __future__ import annotations

from pathlib import Path

from pytest_bpfmaps.kernel.mounts import how_to_mount

PATH = Path("/sys/kernel/debug/kprobes/blacklist")


def is_blacklisted(name: str) -> bool | None:
    """Whether the kernel lists a function there; None if debugfs, which has the list, is not mounted."""
    try:
        return any(line.endswith(f"\t{name}") for line in PATH.read_text().splitlines())
    except OSError:
        return None


def how_to_see() -> str:
    """Returns the command that shows the list."""
    mount = "" if PATH.exists() else how_to_mount("debugfs")
    return f"{mount} && cat {PATH}" if mount else f"cat {PATH}"
