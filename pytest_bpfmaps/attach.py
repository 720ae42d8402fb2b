"""Attaching a program to its target."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import AttachError, closest
from .kernel.privilege import refusal_hint
from .libbpf import capture_log, ffi, lib, opts
from .libbpf.calls import reason
from .links import Link

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


def _interface(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach_xdp(handle, interface_index(target["interface"], on))


def interface_index(interface: str | int, on: str) -> int:
    """The index of a network interface of this namespace."""
    if isinstance(interface, int):
        return interface
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise AttachError(
            f"cannot attach {on}",
            on=f"to interface {interface!r}",
            why="there is none of that name in this network namespace",
            fix=closest(interface, (n for _, n in socket.if_nameindex())),
            errno=errno.ENODEV,
        ) from None


def _cgroup(handle: Any, target: Target, on: str) -> Any:
    return _with_descriptor(target["cgroup"], on, lambda fd: lib.bpf_program__attach_cgroup(handle, fd))


def _netns(handle: Any, target: Target, on: str) -> Any:
    return _with_descriptor(target["netns"], on, lambda fd: lib.bpf_program__attach_netns(handle, fd))


def _with_descriptor(target: Any, on: str, call: Callable[[int], Any]) -> Any:
    """Calls with a descriptor of `target`: one that is open already, or a path."""
    if isinstance(target, int):
        return call(target)
    if hasattr(target, "fileno"):
        return call(target.fileno())
    try:
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise AttachError(
            f"cannot attach {on}", on=f"to {target}", why=reason(e.errno or 0), errno=e.errno
        ) from e
    try:
        return call(fd)
    finally:
        os.close(fd)


def _tracepoint(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach_tracepoint(handle, target["category"].encode(), target["event"].encode())


def _raw_tracepoint(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach_raw_tracepoint(handle, target["tracepoint"].encode())


def _kprobe(handle: Any, target: Target, on: str) -> Any:
    settings = opts("bpf_kprobe_opts", retprobe=target.get("retprobe", False), offset=target.get("offset", 0))
    return lib.bpf_program__attach_kprobe_opts(handle, target["function"].encode(), settings)


def _uprobe(handle: Any, target: Target, on: str) -> Any:
    function = target.get("function")
    c_name = ffi.new("char[]", function.encode()) if function else ffi.NULL
    settings = opts("bpf_uprobe_opts", retprobe=target.get("retprobe", False), func_name=c_name)
    binary = os.fsencode(Path(target["binary"]).resolve())
    return lib.bpf_program__attach_uprobe_opts(
        handle, target.get("pid", -1), binary, target.get("offset", 0), settings
    )


def _perf_event(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach_perf_event(handle, target["perf_event"])


_WAYS: list[tuple[frozenset[str], frozenset[str], Callable[[Any, Target, str], Any]]] = [
    (frozenset(), frozenset(), _default),
    (frozenset({"interface"}), frozenset(), _interface),
    (frozenset({"cgroup"}), frozenset(), _cgroup),
    (frozenset({"netns"}), frozenset(), _netns),
    (frozenset({"category", "event"}), frozenset(), _tracepoint),
    (frozenset({"tracepoint"}), frozenset(), _raw_tracepoint),
    (frozenset({"binary"}), frozenset({"function", "pid", "retprobe", "offset"}), _uprobe),
    (frozenset({"function"}), frozenset({"retprobe", "offset"}), _kprobe),
    (frozenset({"perf_event"}), frozenset(), _perf_event),
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
