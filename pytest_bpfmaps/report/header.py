"""Makes the lines of a run's header: its kernels, what this machine lacks, where the types come from."""

from __future__ import annotations

import os
import shutil

import pytest

from pytest_bpfmaps.matrix.items import GUESTS, SELECTION, only_distributes

_NEWEST, _OLDEST = 22, 14  # versions of clang
_PLACES = {
    "kernel BTF": ("/sys/kernel/btf/vmlinux",),
    "tracefs": ("/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"),
    "kprobes": ("/sys/bus/event_source/devices/kprobe",),
}


def header_lines(config: pytest.Config) -> list[str]:
    """Returns the lines for pytest's header."""
    lines = [f"bpfmaps: kernels host ({os.uname().release})"]
    if GUESTS in config.stash:
        lines = config.stash[GUESTS].header()
    elif SELECTION in config.stash:
        lines = [f"bpfmaps: {config.stash[SELECTION].header()}"]
    if missing := lacking():
        lines.append(f"bpfmaps: this machine lacks {', '.join(missing)} (see `bpfmaps doctor`)")
    if GUESTS not in config.stash and only_distributes(config):
        lines.append(vmlinux_line(config))
    return lines


def vmlinux_line(config: pytest.Config) -> str:
    """Returns the line on where the types of ``vmlinux.h`` come from."""
    from pytest_bpfmaps.errors import VmError
    from pytest_bpfmaps.matrix import compilers

    try:
        return compilers.vmlinux_line(config, compilers.vmlinux_setting(config).choose())
    except VmError as error:
        raise pytest.UsageError(error.full_text()) from None


def lacking() -> list[str]:
    """Returns what BPF tests may need and this machine does not show.

    It only looks at files, and takes well under a millisecond.
    """
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
