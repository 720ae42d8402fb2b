"""Finds where programs are attached without asking who attached them: interfaces, cgroups, namespaces, maps.

Programs of links are among them. Sources: rtnetlink(7), ``BPF_PROG_QUERY`` (Linux 4.15).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pytest_bpfmaps.kernel.attached_to_maps import programs_at_maps
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.mounts import MOUNTINFO, parse_mounts
from pytest_bpfmaps.kernel.netns import inside_netns
from pytest_bpfmaps.kernel.network_dumps import interface_names, interface_peers, network_programs
from pytest_bpfmaps.libbpf import ffi, lib

# enum bpf_attach_type, by the type of program
_CGROUP = {
    ProgramType.CGROUP_SKB: (0, 1),
    ProgramType.CGROUP_SOCK: (2, 12, 13, 34),
    ProgramType.SOCK_OPS: (3,),
    ProgramType.CGROUP_DEVICE: (6,),
    ProgramType.CGROUP_SOCK_ADDR: (8, 9, 10, 11, 14, 15, 19, 20, 29, 30, 31, 32, 49, 50, 51, 52, 53),
    ProgramType.CGROUP_SYSCTL: (18,),
    ProgramType.CGROUP_SOCKOPT: (21, 22),
    ProgramType.LSM: (43,),
}
_NETNS = {ProgramType.FLOW_DISSECTOR: (17,), ProgramType.SK_LOOKUP: (36,)}
_INTERFACE = {
    46: ("tcx", "ingress"),
    47: ("tcx", "egress"),
    54: ("netkit", "primary"),
    55: ("netkit", "peer"),
}
_OF_INTERFACES = frozenset({ProgramType.XDP, ProgramType.SCHED_CLS})
_MOST = 64  # programs at one place


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """A program at a place.

    `type` is ``xdp``, ``tc``, ``tcx``, ``netkit``, ``cgroup``, ``netns``, ``sockmap`` or ``struct_ops``.
    `place` is the id of the place in the kernel: an ifindex, a cgroup's id, a namespace's inode, a map's id.
    `attach_type` is that of <linux/bpf.h>, or -1.
    `word` is what ip(8) or tc(8) calls it, and `netns` the inode of the interface's network namespace.
    """

    program_id: int
    type: str
    target: str
    place: int
    attach_type: int
    word: str = ""
    netns: int = 0


def attached_programs(types: Iterable[ProgramType | int], namespaces: Sequence[int]) -> list[AttachedProgram]:
    """Returns where programs of these types are attached.

    `namespaces` are descriptors of the network namespaces to look into, in this order.
    """
    wanted = set(types)
    found: list[AttachedProgram] = []
    if wanted & _OF_INTERFACES:
        for fd in namespaces:
            with contextlib.suppress(OSError), inside_netns(fd):
                found += _at_interfaces(os.fstat(fd).st_ino)
    netns = [number for type, numbers in _NETNS.items() if type in wanted for number in numbers]
    for fd in namespaces if netns else ():
        inode = os.fstat(fd).st_ino
        found += [
            AttachedProgram(each, "netns", f"net:[{inode}]", inode, n)
            for n in netns
            for each in _query(fd, n)
        ]
    for at in programs_at_maps(wanted):
        target = f"{'struct_ops ' * (at.type == 'struct_ops')}map id {at.map_id}"
        found.append(AttachedProgram(at.program_id, at.type, target, at.map_id, at.attach_type))
    cgroup = [number for type, numbers in _CGROUP.items() if type in wanted for number in numbers]
    return found + (list(_at_cgroups(cgroup)) if cgroup else [])


def _at_interfaces(netns: int) -> Iterator[AttachedProgram]:
    for each in network_programs():
        is_xdp = each.where == "xdp"
        target = each.interface if is_xdp else f"{each.interface} {each.where}"
        type, number = ("xdp", 37) if is_xdp else ("tc", -1)
        yield AttachedProgram(each.program_id, type, target, each.ifindex, number, each.word, netns)
    for index, name in interface_names().items():
        for number, (type, where) in _INTERFACE.items():
            for each_id in _query(index, number):
                # a link to the peer has the peer's number
                place = interface_peers().get(index, index) if where == "peer" else index
                yield AttachedProgram(each_id, type, f"{name} {where}", place, number, netns=netns)


def _at_cgroups(numbers: list[int]) -> Iterator[AttachedProgram]:
    for path, inode in cgroup_folders():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # it was removed meanwhile
            continue
        try:
            for number in numbers:
                for each in _query(fd, number):
                    yield AttachedProgram(each, "cgroup", path, inode, number)
        finally:
            os.close(fd)


def cgroup_folders() -> Iterator[tuple[str, int]]:
    """Yields the path and the id of each cgroup (version 2)."""
    for mount in parse_mounts(MOUNTINFO.read_text(errors="surrogateescape")):
        if mount.kind == "cgroup2":
            for path, _, _ in os.walk(mount.point):
                with contextlib.suppress(OSError):
                    yield path, os.stat(path).st_ino


def _query(place: int, attach_type: int) -> list[int]:
    """Returns the ids of the programs at a place; none if this kernel has no such place."""
    ids, count = ffi.new("uint32_t[]", _MOST), ffi.new("uint32_t *", _MOST)
    if lib.bpf_prog_query(place, attach_type, 0, ffi.NULL, ids, count) < 0:
        return []
    return list(ids[0 : count[0]])
