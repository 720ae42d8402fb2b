"""Finds the file systems that BPF tests need, and the commands that mount missing ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
_PLACES = {
    "sysfs": "/sys",
    "bpf": "/sys/fs/bpf",
    "cgroup2": "/sys/fs/cgroup",
    "tracefs": "/sys/kernel/tracing",
    "debugfs": "/sys/kernel/debug",
}


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system. `kind` is the kernel's name for it, such as ``cgroup2``.

    `part` is the path inside the file system that is mounted at the path `point`; ``/`` means all of it.
    """

    kind: str
    part: str
    point: str


def parse_mounts(mountinfo: str) -> Iterator[Mount]:
    """Yields the mounts in the text of /proc/self/mountinfo, proc_pid_mountinfo(5)."""
    for line in filter(None, mountinfo.split("\n")):  # a path may have other line ends and spaces of Unicode
        fields, _, rest = line.partition(" - ")
        part, point = (_unescape(field) for field in fields.split(" ")[3:5])
        yield Mount(rest.split(" ")[0], part, point)


def _unescape(field: str) -> str:
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), field)


def has_sysfs() -> bool:
    """Returns whether sysfs is mounted at /sys."""
    return os.path.exists("/sys/kernel")


def how_to_mount(kind: str) -> str:
    """Returns the command that mounts a file system at its usual place; `kind` is the kernel's name for it.

    The command also mounts sysfs if that is missing. If cgroup v1 is at the usual place, it mounts cgroup v2
    below it. Returns an empty text if this kernel has no such file system.
    """
    if not _kernel_has(kind):
        return ""
    place = _PLACES[kind]
    steps = [] if has_sysfs() or kind == "sysfs" else ["mount -t sysfs sysfs /sys"]
    if kind == "cgroup2" and os.path.ismount(place):
        place += "/unified"
        steps.append(f"mkdir -p {place}")
    return " && ".join([*steps, f"mount -t {kind} {kind} {place}"])


def _kernel_has(kind: str) -> bool:
    try:
        with open("/proc/filesystems") as file:
            return kind in file.read().split()
    except OSError:
        return True
