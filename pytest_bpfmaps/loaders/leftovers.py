"""Names what an agent that has ended left behind: processes, programs, links, pins."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from pytest_bpfmaps.errors import ExpectationError
from pytest_bpfmaps.kernel.attached_programs import AttachedProgram
from pytest_bpfmaps.kernel.netns import NETNS_NAMES
from pytest_bpfmaps.kernel.polling import pauses
from pytest_bpfmaps.loaders.links import AgentLink


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
    waits = pauses(timeout)
    while (left := find()) and (pause := next(waits, None)) is not None:
        time.sleep(pause)
    if left:
        fixes = "; ".join(dict.fromkeys(each.fix for each in left))
        raise ExpectationError(
            f"{on} left something behind",
            why="1 thing" if len(left) == 1 else f"{len(left)} things",
            details="\n".join(f"  {each.what}" for each in left),
            fix=f"make it remove these when it gets SIGTERM. By hand: {fixes}",
        )


def detach_command(link: AgentLink, place: AttachedProgram | None) -> str:
    """Returns the command that detaches a program. `place` is where the kernel has it, if that is known."""
    if link.id is not None:
        return f"bpftool link detach id {link.id}"
    interface, _, where = link.target.partition(" ")
    if link.type == "cgroup":
        return f"bpftool cgroup detach {link.target} {link.attach_type} id {link.program_id}"
    if link.type == "struct_ops" and place:
        return f"bpftool struct_ops unregister id {place.place}"
    if link.type == "sockmap" and place:
        return f"bpftool prog detach id {link.program_id} {link.attach_type} id {place.place}"
    if link.type == "netns":
        return f"bpftool prog detach id {link.program_id} {link.attach_type}"
    inside = _inside(place.netns) if place else ""
    if link.type == "xdp":
        return f"{inside}ip link set dev {interface} {place.word if place else 'xdp'} off"
    if link.type == "tc":
        return f"{inside}tc filter del dev {interface} {where} {place.word if place else ''}".rstrip()
    if link.type == "tcx":
        return f"{inside}bpftool net detach tcx_{where} dev {interface} (bpftool 7.5 and later)"
    if link.type == "netkit":  # no tool detaches it
        return f"{inside}ip link del dev {interface}"
    return f"bpftool prog show id {link.program_id}"


def _inside(netns: int) -> str:
    """Returns the beginning of a command that runs in a network namespace; nothing if that is this one."""
    if netns in (0, os.stat("/proc/thread-self/ns/net").st_ino):
        return ""
    for name in os.listdir(NETNS_NAMES) if os.path.isdir(NETNS_NAMES) else ():
        with contextlib.suppress(OSError):  # it is gone
            if os.stat(f"{NETNS_NAMES}/{name}").st_ino == netns:
                return f"ip netns exec {name} "
    return "nsenter --net=/proc/PID/ns/net "
