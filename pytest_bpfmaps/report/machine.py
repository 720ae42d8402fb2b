"""What `bpfmaps doctor` tells, in one line, from what can be seen without trying: for each run's header."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_bpfmaps.vm.vmlinux_h import VmlinuxH

_NEWEST, _OLDEST = 22, 14  # clang
_PLACES = {
    "kernel BTF": ("/sys/kernel/btf/vmlinux",),
    "tracefs": ("/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"),
    "kprobes": ("/sys/bus/event_source/devices/kprobe",),
}


def lacking() -> list[str]:
    """What BPF tests may want and this machine does not show; costs well under a millisecond."""
    found = []
    names = ("clang", *(f"clang-{n}" for n in range(_NEWEST, _OLDEST - 1, -1)))
    if not os.environ.get("CLANG") and not any(map(shutil.which, names)):
        found.append("clang")
    found += [what for what, places in _PLACES.items() if not any(map(os.path.exists, places))]
    if not _has_cgroup2():
        found.append("cgroup v2")
    return found


_SHOWN: pytest.StashKey[bool] = pytest.StashKey()


def show_lines(config: pytest.Config) -> None:
    """Has pytest show what is said about the cache: on its terminal, or in a worker on standard error."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not config.stash.setdefault(_SHOWN, False):
        config.stash[_SHOWN] = True
        from pytest_bpfmaps import stored

        lines = ExitStack()
        lines.enter_context(stored.listening(lambda line: terminal.write_line(f"bpfmaps: {line}")))
        config.add_cleanup(lines.close)


def vmlinux_line(config: pytest.Config, chosen: VmlinuxH) -> str:
    """Whose ``vmlinux.h`` the run has; a header that sources include before it comes first."""
    for folder in config.getini("bpf_paths"):
        own = config.rootpath / folder / "vmlinux.h"
        if own.is_file():
            return f"bpfmaps: vmlinux.h: the project's own, {os.path.relpath(own, config.rootpath)}"
    return f"bpfmaps: vmlinux.h {chosen.text}"


def _has_cgroup2() -> bool:
    try:
        with open("/proc/self/mounts", "rb") as file:
            return b" cgroup2 " in file.read()
    except OSError:
        return False
