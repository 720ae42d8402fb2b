"""Finds the maps, programs, links and perf events that a process has open: ``/proc/PID/fdinfo``."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from pytest_bpfmaps.libbpf import ffi
from pytest_bpfmaps.libbpf.syscalls import BPF_TASK_FD_QUERY, address, bpf_answer

_IDS = {"map_id": "maps", "prog_id": "programs", "link_id": "links"}
_QUERY = struct.Struct("=IIIIQIIQQ")  # the part of union bpf_attr for BPF_TASK_FD_QUERY
_NAME = 4096  # PATH_MAX: the kernel refuses a path that does not fit
_FD_TYPES = ("raw_tracepoint", "tracepoint", "kprobe", "kretprobe", "uprobe", "uretprobe")


@dataclass(frozen=True, slots=True)
class PerfTarget:
    """A perf event with a program, as ``BPF_TASK_FD_QUERY`` tells it (Linux 4.18).

    `kind` is ``tracepoint``, ``kprobe`` …; `name` is the tracepoint, function or file; `offset` is in bytes.
    """

    program_id: int
    kind: str
    name: str
    offset: int


@dataclass(slots=True)
class HeldObjects:
    """Ids of what is open. `programs` includes those of links."""

    maps: set[int] = field(default_factory=set)
    programs: set[int] = field(default_factory=set)
    links: set[int] = field(default_factory=set)
    perf: list[PerfTarget] = field(default_factory=list)

    def add(self, other: HeldObjects) -> None:
        """Adds what another process has open."""
        self.maps |= other.maps
        self.programs |= other.programs
        self.links |= other.links
        self.perf += other.perf


def held_by(pid: int, *, perf: bool = True) -> HeldObjects:
    """Returns what a process has open; nothing if it has ended, or /proc hides it.

    Without `perf`, perf events and their programs are left out.
    """
    found = HeldObjects()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("anon_inode:bpf"):
            _add_ids(found, f"/proc/{pid}/fdinfo/{name}")
        elif perf and target == "anon_inode:[perf_event]":
            event = perf_target(pid, int(name))
            if event is not None:
                found.perf.append(event)
                found.programs.add(event.program_id)
    return found


def ids_in(fdinfo: str) -> HeldObjects:
    """Returns the ids of a descriptor; `fdinfo` is a path such as ``/proc/self/fdinfo/7``."""
    found = HeldObjects()
    _add_ids(found, fdinfo)
    return found


def _add_ids(found: HeldObjects, path: str) -> None:
    try:
        text = Path(path).read_text()
    except OSError:
        return
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in _IDS and value.strip() != "0":
            getattr(found, _IDS[name]).add(int(value))


def perf_target(pid: int, fd: int) -> PerfTarget | None:
    """Returns the program and the target of a perf event; None if it has no program."""
    text = ffi.new("char[]", _NAME)
    query = _QUERY.pack(pid, fd, 0, _NAME, address(text), 0, 0, 0, 0)
    try:
        answer = bpf_answer(BPF_TASK_FD_QUERY, query)
    except OSError:  # an event without a program, or another process's that has ended
        return None
    *_, program, kind, offset, _ = _QUERY.unpack(answer)
    name = ffi.string(text).decode(errors="replace")
    return PerfTarget(program, _FD_TYPES[kind] if kind < len(_FD_TYPES) else str(kind), name, offset)
