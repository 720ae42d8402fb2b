"""Attaches to network interfaces and network namespaces."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach import Target, tc
from pytest_bpfmaps.attach.link_types import AttachType
from pytest_bpfmaps.attach.links import FdLink, Link
from pytest_bpfmaps.attach.refusals import programs_at, refused
from pytest_bpfmaps.attach.targets import (
    choose,
    create_link,
    descriptor_of,
    interface_of,
    program_type,
    refuse_keys,
)
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.libbpf import capture_log, ffi, lib

XDP_MODES = {"skb": 1 << 1, "native": 1 << 2, "offload": 1 << 3}  # <linux/if_link.h>, XDP_FLAGS_*_MODE


def to_interface(handle: Any, target: Target, on: str) -> Link:
    """Attaches an XDP or tc program to an interface.

    The interface is in this thread's namespace, in that of `netns=`, or in its own, if it is an object of
    `bpf_netns`.
    """
    with interface_of(target, on) as index:
        if program_type(handle) is ProgramType.XDP:
            return _xdp(handle, index, target, on)
        return tc.attach(handle, index, target, on)


def _xdp(handle: Any, index: int, target: Target, on: str) -> Link:
    flags = 0
    if "mode" in target:
        flags = choose(target, "mode", XDP_MODES, on)
    refuse_keys(
        target,
        ("direction", "priority", "handle", "before", "after"),
        on,
        "XDP runs only for packets that arrive, and takes one program",
    )
    result = create_link(handle, index, AttachType.XDP, flags)
    if result >= 0:
        return FdLink(result, on)
    there = ffi.new("uint32_t *")
    with capture_log():
        lib.bpf_xdp_query_id(index, 0, there)
    raise refused(
        -result,
        on,
        target,
        type=ProgramType.XDP,
        there=[there[0]] if there[0] else [],
        fix=_of_map(handle) or _xdp_fix(-result, target),
    )


_MAPS = {AttachType.XDP_DEVMAP: "DEVMAP or DEVMAP_HASH", AttachType.XDP_CPUMAP: "CPUMAP"}


def _of_map(handle: Any) -> str | None:
    """Returns what to do with a program that belongs into a map's elements; None for one for interfaces."""
    expected = AttachType.from_number(lib.bpf_program__expected_attach_type(handle))
    kind = _MAPS.get(expected) if isinstance(expected, AttachType) else None
    return kind and (
        f'for an interface write SEC("xdp"); a program of this section runs from an element of a {kind}, '
        "whose value has its file descriptor"
    )


def _xdp_fix(number: int, target: Target) -> str | None:
    mode = target.get("mode")
    if mode == "native" and number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE):
        return 'its driver has no native XDP, or not for this MTU: mode="skb", or a smaller MTU'
    if mode == "offload":
        return 'mode="skb" or mode="native": offload needs a program that was loaded for the device'
    return None


def to_netns(handle: Any, target: Target, on: str) -> Link:
    """Attaches a sk_lookup or flow dissector program to a network namespace (Linux 5.8)."""
    attach_type = int(lib.bpf_program__expected_attach_type(handle))
    with descriptor_of(target, "netns", on) as fd:
        result = create_link(handle, fd, attach_type)
        if result >= 0:
            return FdLink(result, on)
        there = programs_at(fd, attach_type)
    fix = "give a network namespace: one of bpf_netns, or /proc/PID/ns/net"
    raise refused(
        -result,
        on,
        target,
        type=program_type(handle),
        there=there,
        fix=fix if -result == errno.EINVAL else None,
    )
