"""Attaching a program to its target."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from ..errors import AttachError, closest
from ..kernel.privilege import refusal_hint
from ..libbpf import capture_log, ffi, lib
from ..libbpf.calls import reason
from ..links import Link
from . import network, tracing

Target = dict[str, Any]


def attach_program(handle: Any, on: str, section: str, type: Any, target: Target) -> Link:
    """Attaches the program behind a libbpf handle; `on` names it in messages.

    Without a target: where its section's name says, ``SEC("tracepoint/syscalls/sys_enter_openat")`` for one.
    Otherwise one of:

    - ``interface="veth0"`` (or an index): XDP on a network interface (Linux 5.9, commit aa8d3a716b59)
    - ``cgroup="/sys/fs/cgroup/x"`` (a path or an open descriptor): cgroup programs (Linux 5.7)
    - ``netns="/proc/self/ns/net"`` (a path or descriptor): sk_lookup, flow dissector (Linux 5.8)
    - ``category="syscalls", event="sys_enter_openat"``: a tracepoint
    - ``tracepoint="sched_switch"``: a raw tracepoint
    - ``function="do_unlinkat", retprobe=False, offset=0``: a kprobe
    - ``binary="/bin/bash", function="readline", pid=-1, retprobe=False, offset=0``: a uprobe
    - ``perf_event=fd``: a perf event that is open already

    Raises `AttachError`, an `OSError` with errno.
    """
    way = _find_way(target, on)
    with capture_log() as log:
        link = way(handle, target, on)
        number = ffi.errno
    if link != ffi.NULL:
        return Link(link, on)
    where = "to " + ", ".join(f"{n}={v!r}" for n, v in target.items()) if target else "where its section says"
    why, fix = _explain(number, section, bool(target), str(type))
    raise AttachError(
        f"cannot attach {on}", on=where, why=why, details=log.text or None, fix=fix, errno=number
    )


def _find_way(target: Target, on: str) -> Callable[[Any, Target, str], Any]:
    names = frozenset(target)
    for required, optional, way in _WAYS:
        if required <= names <= required | optional:
            return way
    known = sorted({n for required, optional, _ in _WAYS for n in required | optional})
    unknown = [n for n in target if n not in known]
    raise AttachError(
        f"cannot attach {on}",
        on="to " + ", ".join(f"{n}={v!r}" for n, v in target.items()),
        why=f"no such target: {', '.join(unknown)}" if unknown else "these do not go together",
        fix=closest(unknown[0], known) if unknown else f"targets are given by: {', '.join(known)}",
        errno=errno.EINVAL,
    )


def _default(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach(handle)


_WAYS: list[tuple[frozenset[str], frozenset[str], Callable[[Any, Target, str], Any]]] = [
    (frozenset(), frozenset(), _default),
    (frozenset({"interface"}), frozenset(), network.to_interface),
    (frozenset({"cgroup"}), frozenset(), network.to_cgroup),
    (frozenset({"netns"}), frozenset(), network.to_netns),
    (frozenset({"category", "event"}), frozenset(), tracing.to_tracepoint),
    (frozenset({"tracepoint"}), frozenset(), tracing.to_raw_tracepoint),
    (frozenset({"binary"}), frozenset({"function", "pid", "retprobe", "offset"}), tracing.to_uprobe),
    (frozenset({"function"}), frozenset({"retprobe", "offset"}), tracing.to_kprobe),
    (frozenset({"perf_event"}), frozenset(), tracing.to_perf_event),
]


def _explain(number: int, section: str, has_target: bool, type: str) -> tuple[str, str | None]:
    """Why the attachment was refused, and what to do."""
    if number == errno.EOPNOTSUPP and not has_target:
        return (
            f"the section {section!r} names no target",
            "name it: program.attach(interface=…), attach(cgroup=…), attach(function=…)",
        )
    fix = None
    if number in (errno.EPERM, errno.EACCES):
        fix = refusal_hint(type)
    elif number == errno.ENOENT:
        fix = "the target does not exist in this kernel, or tracefs is not mounted at /sys/kernel/tracing"
    return reason(number), fix
