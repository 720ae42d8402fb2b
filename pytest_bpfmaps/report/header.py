"""Finds what this machine lacks for BPF tests, for a line in the header of a run. It only looks at files."""

from __future__ import annotations

import os
import shutil

_NEWEST, _OLDEST = 22, 14  # versions of clang
_PLACES = {
    "kernel BTF": ("/sys/kernel/btf/vmlinux",),
    "tracefs": ("/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"),
    "kprobes": ("/sys/bus/event_source/devices/kprobe",),
}


def lacking() -> list[str]:
    """Returns what BPF tests may need and this machine does not show. Takes well under a millisecond."""
    found = []
    names = ("clang", *(f"clang-{n}" for n in range(_NEWEST, _OLDEST - 1, -1)))
    if not os.environ.get("CLANG") and not any(map(shutil.which, names)):
        found.append("clang")
    found += [what for what, places in _PLACES.items() if not any(map(os.path.exists, places))]
    if not _has_cgroup2():
        found.append("cgroup v2")
    return found


def _has_cgroup2() -> bool:
    try:
        with open("/proc/self/mounts", "rb") as file:
            return b" cgroup2 " in file.read()
    except OSError:
        return False
