"""Finds functions that no kprobe may be attached to, because kprobes use them themselves."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_bpfmaps.kernel.mounts import how_to_mount
from pytest_bpfmaps.libbpf.syscalls import open_file_system

PATH = Path("/sys/kernel/debug/kprobes/blacklist")


def is_blacklisted(name: str) -> bool | None:
    """Returns whether the kernel lists a function there.

    None if debugfs, which has the list, can't be read.
    """
    try:
        text = PATH.read_text()
    except OSError:
        text = _unmounted()
    return any(line.endswith(f"\t{name}") for line in text.splitlines()) if text else None


def _unmounted() -> str:
    """Returns the list where debugfs is not mounted, by a mount that no folder shows; empty if refused."""
    try:
        root = open_file_system("debugfs")
    except OSError:  # before Linux 5.2, or without the right to mount
        return ""
    try:
        with open(os.open("kprobes/blacklist", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)) as file:
            return file.read()
    except OSError:
        return ""
    finally:
        os.close(root)


def how_to_see() -> str:
    """Returns the command that shows the list."""
    mount = "" if PATH.exists() else how_to_mount("debugfs")
    return f"{mount} && cat {PATH}" if mount else f"cat {PATH}"
