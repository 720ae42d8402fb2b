"""Attaching to control groups."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach import Target
from pytest_bpfmaps.attach.link_types import AttachType
from pytest_bpfmaps.attach.links import FdLink, Link
from pytest_bpfmaps.attach.refusals import programs_at, refused, show_target
from pytest_bpfmaps.attach.targets import choose, create_link, descriptor_of, program_type, refuse_keys
from pytest_bpfmaps.errors import AttachError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.libbpf import lib, to_str

DIRECTIONS = {"ingress": AttachType.CGROUP_INET_INGRESS, "egress": AttachType.CGROUP_INET_EGRESS}


def to_cgroup(handle: Any, target: Target, on: str) -> Link:
    """Attaches a program of a cgroup type, or sockops (Linux 5.7, commit af6eea57437a).

    It runs for the processes in the group and in the groups below it. Programs that are attached there stay.
    """
    attach_type = _attach_type(handle, target, on)
    with descriptor_of(target, "cgroup", on) as fd:
        result = create_link(handle, fd, attach_type)
        if result >= 0:
            return FdLink(result, on)
        there = programs_at(fd, attach_type)
    fix = None
    if -result == errno.EBADF:
        fix = "give a folder of a cgroup v2 hierarchy: the fixture bpf_cgroup, or one below its root"
    raise refused(-result, on, target, type=program_type(handle), there=there, fix=fix)


def _attach_type(handle: Any, target: Target, on: str) -> int:
    """Returns the ``enum bpf_attach_type``: from the section, or for ``SEC("cgroup/skb")`` the direction."""
    section_says = int(lib.bpf_program__expected_attach_type(handle))
    if program_type(handle) is not ProgramType.CGROUP_SKB:
        refuse_keys(target, ("direction",), on, "a direction is for cgroup_skb programs")
        return section_says
    if "direction" in target:
        return choose(target, "direction", DIRECTIONS, on)
    if section_says == 0 and "ingress" not in to_str(lib.bpf_program__section_name(handle)):
        raise AttachError(
            f"cannot attach {on}",
            on=show_target(target),
            why="its section names no direction",
            fix='give direction="ingress" or direction="egress"',
            errno=errno.EINVAL,
        )
    return section_says
