"""Finds the processes that have a map open, among those that /proc shows to this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.elf.process_mappings import mappings_of

_MAPPED = "anon_inode:bpf-map"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a descriptor of the map.

    `maps` says whether it has mapped the memory of a map, and `perf_events` whether it has perf events open.
    """

    pid: int
    name: str
    maps: bool
    perf_events: bool

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"


def holders_of_map(map_id: int) -> list[Holder]:
    """Returns the other processes that have the map with that id open."""
    line = f"map_id:\t{map_id}"
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [_holder(pid) for pid in sorted(pids) if pid != os.getpid() and _has(pid, line)]


def _has(pid: int, line: str) -> bool:
    return any(line in _read(f"/proc/{pid}/fdinfo/{fd}").splitlines() for fd in _descriptors(pid))


def _holder(pid: int) -> Holder:
    targets = [_target(f"/proc/{pid}/fd/{fd}") for fd in _descriptors(pid)]
    name = _read(f"/proc/{pid}/comm").strip()
    return Holder(pid, name, _maps_a_map(pid), "anon_inode:[perf_event]" in targets)


def _maps_a_map(pid: int) -> bool:
    try:
        return any(_MAPPED in m.path for m in mappings_of(pid))
    except OSError:  # gone, or not ours
        return False


def _descriptors(pid: int) -> Iterator[str]:
    try:
        yield from os.listdir(f"/proc/{pid}/fd")
    except OSError:  # gone, or not ours
        return


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
