"""Names what an agent that has ended left behind: processes, programs, links, pins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pytest_bpfmaps.errors import ExpectationError
from pytest_bpfmaps.kernel.release import timeout_scale

_POLL = 0.01  # seconds


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that was left, and the command that removes it."""

    what: str
    fix: str


def expect_nothing(find: Callable[[], list[Leftover]], on: str, timeout: float) -> None:
    """Raises `ExpectationError` if `find` still returns something after `timeout` seconds.

    The kernel frees some programs only a moment after the process has ended. It tells that by perf events
    only (``PERF_RECORD_BPF_EVENT``), which a process may lack the right to read. So `find` is called again
    and again.
    """
    end = time.monotonic() + timeout * timeout_scale()
    while (left := find()) and time.monotonic() < end:
        time.sleep(_POLL)
    if left:
        fixes = "; ".join(dict.fromkeys(each.fix for each in left))
        raise ExpectationError(
            f"{on} left something behind",
            why="1 thing" if len(left) == 1 else f"{len(left)} things",
            details="\n".join(f"  {each.what}" for each in left),
            fix=f"make it remove these when it gets SIGTERM. By hand: {fixes}",
        )


def detach_command(type: str, target: str, program_id: int, link: int | None) -> str:
    """Returns the command that detaches a program."""
    interface, _, where = target.partition(" ")
    if link is not None:
        return f"bpftool link detach id {link}"
    if type == "xdp":
        return f"ip link set dev {target} xdp off"
    if type == "tc":
        return f"tc filter del dev {interface} {where}"
    if type == "cgroup":
        return f"bpftool cgroup detach {target} ATTACH_TYPE id {program_id}"
    if type in ("tcx", "netkit"):
        return f"bpftool net detach {type}_{where} dev {interface}"
    return f"bpftool prog show id {program_id}"
