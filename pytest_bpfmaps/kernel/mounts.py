"""File systems that BPF tests want, and the commands that mount them where they are not."""

from __future__ import annotations

import os

_PLACES = {
    "sysfs": "/sys",
    "bpf": "/sys/fs/bpf",
    "cgroup2": "/sys/fs/cgroup",
    "tracefs": "/sys/kernel/tracing",
}


def has_sysfs() -> bool:
    """Returns whether sysfs is at /sys."""
    return os.path.exists("/sys/kernel")


def how_to_mount(kind: str) -> str:
    """Returns the command that mounts a file system, by the kernel's name of its kind, where it belongs.

    It mounts sysfs first where that is not there. cgroup v2 goes beside version 1 where that has the place.
    Empty when this kernel has no such file system.
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
