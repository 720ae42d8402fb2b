"""Attaches a program to its target."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach import Target, cgroup, network, sockets, tracing
from pytest_bpfmaps.attach.links import Link
from pytest_bpfmaps.attach.program_targets import check_kind, no_target
from pytest_bpfmaps.attach.refusals import show_target
from pytest_bpfmaps.attach.section_targets import section_for
from pytest_bpfmaps.attach.targets import Ways, find_way
from pytest_bpfmaps.errors import AttachError, Explanation, UnsupportedError
from pytest_bpfmaps.kernel.privileges import refusal_hint
from pytest_bpfmaps.libbpf import capture_log, ffi, lib
from pytest_bpfmaps.libbpf.calls import reason


def attach_program(handle: Any, on: str, section: str, type: Any, target: Target) -> Link:
    """Attaches the program with a libbpf handle; `on` is its name in messages.

    Without keywords, the target is in the section's name: ``SEC("tracepoint/syscalls/sys_enter_openat")``.
    The keywords are one of:

    - ``interface="veth0"`` (a name, an index, an interface of `bpf_netns`), and ``netns=`` when it is not in
      this thread's namespace: XDP, with ``mode="skb"`` or ``"native"`` (Linux 5.9, commit aa8d3a716b59); tc,
      with ``direction="ingress"`` or ``"egress"``, ``priority=1`` or ``before=``, ``after=`` (a link or
      program that is attached there, or True for all; Linux 6.6)
    - ``cgroup="/sys/fs/cgroup/x"`` (a path, an open descriptor, a `bpf_cgroup`): cgroup programs, sockops
      (Linux 5.7), with ``direction=`` for ``SEC("cgroup/skb")``
    - ``netns="/proc/self/ns/net"`` (a path, a descriptor, one of `bpf_netns`): sk_lookup, flow dissector
      (Linux 5.8)
    - ``map=obj.maps.sockets``: sk_skb and sk_msg programs, on a map of sockets
    - ``socket=sock``: socket filters, sk_reuseport
    - ``hook="input", family="ipv4", priority=0``, ``netns=``: netfilter (Linux 6.4)
    - ``category="syscalls", event="sys_enter_openat"``: a tracepoint
    - ``tracepoint="sched_switch"``: a raw tracepoint
    - ``function="do_unlinkat", retprobe=False, offset=0``: a kprobe; ``function="tun:tun_chr_open"`` is the
      function of a module, ``"vmlinux:group_show"`` one of the kernel itself
    - ``syscall="openat"``: a kprobe on a system call
    - ``functions="tcp_*"`` (a pattern or names): kprobe.multi (Linux 5.18)
    - ``binary="/bin/bash", function="readline", pid=-1, retprobe=False, offset=0``: a uprobe; `binary` is a
      path or a loaded library, ``"libc"``, ``"libpython"``; without `function` the offset is one in the file
    - ``binary="libc", functions="mem*"``: uprobe.multi (Linux 6.6)
    - ``binary="/bin/bash", usdt="provider:name"``: a statically defined tracepoint
    - ``perf_event="cpu_clock", frequency=100`` (``period=``), ``pid=``, ``cpu=``: a perf event by its name,
      by ``{"type": "hw_cache", "config": 3}``, or by the descriptor of one that is open
    - ``map=``, ``cgroup=`` with ``order="descendants_pre"``, ``pid=``, ``tid=``: what an iterator runs over
    - ``target=program, function="name"``: freplace

    ``cookie=7`` beside a tracing target is what ``bpf_get_attach_cookie`` returns in the program (Linux 5.15,
    fentry 6.0, raw tracepoints 6.10). ``cookies=[…]`` is for `functions`. For an iterator, the link is an
    `iterators.IteratorLink`.

    Raises `AttachError`, an `OSError` with errno.
    """
    try:
        return _attach(handle, on, section, type, target)
    except (AttachError, UnsupportedError) as e:
        e.section = section_for(section, target)
        raise


def _attach(handle: Any, on: str, section: str, type: Any, target: Target) -> Link:
    if tracing.takes(handle, type, target):
        return tracing.attach(handle, on, section, type, target)
    way = find_way(_WAYS, target, on)
    check_kind(type, target, on, section)
    with capture_log() as log:
        link = way(handle, target, on)
        number = ffi.errno
    if isinstance(link, Link):
        return link
    if link != ffi.NULL:
        return Link(link, on)
    where = show_target(target) if target else "where its section says"
    why, fix = _explain(number, section, bool(target), type)
    raise AttachError(
        f"cannot attach {on}", on=where, why=why, details=log.text or None, fix=fix, errno=number
    )


def names_no_target(error: AttachError) -> bool:
    """Returns whether a program could not be attached because its section names no target."""
    return error.errno == errno.EOPNOTSUPP and "names no target" in (error.why or "")


def _default(handle: Any, target: Target, on: str) -> Any:
    return lib.bpf_program__attach(handle)


_WAYS: Ways = [
    (frozenset(), frozenset(), _default),
    (
        frozenset({"interface"}),
        frozenset({"netns", "mode", "direction", "priority", "handle", "before", "after"}),
        network.to_interface,
    ),
    (frozenset({"cgroup"}), frozenset({"direction"}), cgroup.to_cgroup),
    (frozenset({"netns"}), frozenset(), network.to_netns),
    (frozenset({"map"}), frozenset(), sockets.to_map),
    (frozenset({"socket"}), frozenset(), sockets.to_socket),
    (frozenset({"hook"}), frozenset({"family", "priority", "netns"}), sockets.to_hook),
]


def _explain(number: int, section: str, has_target: bool, type: Any) -> Explanation:
    """Explains why libbpf or the kernel refused to attach a program that is not for tracing."""
    if number == errno.EOPNOTSUPP and not has_target:
        return no_target(type, section)
    fix = None
    if number in (errno.EPERM, errno.EACCES):
        fix = refusal_hint(str(type))
    elif number == errno.ENOENT:
        fix = "the target does not exist in this kernel, or tracefs is not mounted at /sys/kernel/tracing"
    return Explanation(reason(number), fix)
