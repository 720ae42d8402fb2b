"""Finds what a process tree has in the kernel: programs, maps, links, pins."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_bpfmaps.attach.links import LinkInfo, link_by_id
from pytest_bpfmaps.errors import AttachError
from pytest_bpfmaps.kernel.attached_programs import AttachedProgram, attached_programs
from pytest_bpfmaps.kernel.held_objects import HeldObjects, held_by
from pytest_bpfmaps.kernel.netns import NETNS_NAMES
from pytest_bpfmaps.kernel.open_resources import forget, keep, note
from pytest_bpfmaps.kernel.pinned_objects import Pin, pinned_at, pins_below, pins_of
from pytest_bpfmaps.kernel.program_info import ProgramInfo, loaded_ids, program_info
from pytest_bpfmaps.kernel.program_loads import ProgramLoads
from pytest_bpfmaps.triggers.unique_names import is_of_another_process


@dataclass(frozen=True, slots=True)
class Before:
    """What was in the kernel before a process did anything; `loads` tells which programs it loads after that.

    `loads` is None where nothing tells. It is closed with the `KernelObjects` that it is given to. `words`
    are the process's arguments, and values of its environment that this process does not have.
    """

    programs: frozenset[int]
    maps: frozenset[int]
    links: frozenset[int]
    pins: frozenset[Pin]
    loads: ProgramLoads | None = None
    words: tuple[str, ...] = ()


def before_now(loads: ProgramLoads, words: tuple[str, ...]) -> Before:
    """Returns what is in the kernel now. It is empty where this process may not list it."""
    programs, maps, links = (frozenset(_ids(kind)) for kind in ("prog", "map", "link"))
    return Before(programs, maps, links, frozenset(pins_of()), loads, words)


def before_time(nanoseconds: float) -> Before:
    """Returns the programs that were loaded before a time since boot.

    The kernel does not tell the time of maps and links, so all that exist now count as older. A map or link
    is found if the process has it open, or if it belongs to a program that is found.
    """
    infos = [program_info(number) for number in _ids("prog")]
    old = frozenset(each.id for each in infos if each is not None and each.load_time < nanoseconds)
    return Before(old, frozenset(_ids("map")), frozenset(_ids("link")), frozenset())


class _End(NamedTuple):
    """When a process tree had ended, in nanoseconds since boot and since 1970."""

    boot: float
    epoch: float


_NOT_YET = _End(float("inf"), float("inf"))


@dataclass(slots=True)
class Unproven:
    """What another process may have made: ids of programs, and pins as in `Found`."""

    programs: set[int] = field(default_factory=set)
    pins: dict[str, HeldObjects] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What a process tree has now. `pins` are paths with the ids of what is pinned there."""

    programs: dict[int, ProgramInfo] = field(default_factory=dict)
    maps: set[int] = field(default_factory=set)
    links: dict[int, LinkInfo] = field(default_factory=dict)
    held: HeldObjects = field(default_factory=HeldObjects)
    pins: dict[str, HeldObjects] = field(default_factory=dict)
    attached: list[AttachedProgram] = field(default_factory=list)
    unproven: Unproven = field(default_factory=Unproven)


class KernelObjects:
    """Looks for what a process tree has. `netns` is the namespace that it began in, a descriptor.

    `before.loads` tells which programs the tree has loaded. Where nothing tells that, a program counts as
    its own if it came after `before`, no other process has it open, and it is attached or pinned. A link or a
    pin counts by its program; so does a map, if a program uses it. Another pinned map counts if this worker
    has no neighbours, or if the agent's arguments name its path or folder. What was found once stays its own.
    `bpffs` is the folder of a bpf file system that only the tree has, or None.
    """

    def __init__(self, before: Before, netns: int, bpffs: str | None = None) -> None:
        self._before = before
        self._bpffs = bpffs
        self._netns = netns
        self._loads = before.loads
        self._end = _NOT_YET
        self.seen: dict[int, ProgramInfo] = {}  # the programs that were found at any time
        self._programs: set[int] = set()
        self._links: set[int] = set()
        self._maps: set[int] = set()
        note("network namespace of an agent", [netns])
        keep([netns])

    def note_end(self) -> None:
        """Notes that all processes have ended: what comes later is not theirs."""
        if self._end is _NOT_YET:
            self._end = _End(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())
            if self._loads:
                self._loads.end()

    def alive(self) -> dict[int, ProgramInfo]:
        """Returns the programs that were found at any time and are still loaded."""
        loaded = self._loads.ids() if self._loads else None
        return self._infos(self._programs if loaded is None else self._programs & loaded)

    def look(self, pids: Iterable[int], *, places: bool = False) -> Found:
        """Returns what the processes have. With `places`, also where programs are attached without a link."""
        pids = list(pids)
        loaded = self._loads.ids() if self._loads else None
        found = Found()
        for pid in pids:
            found.held.add(held_by(pid))
        fresh = {n for n in _ids("prog") if n not in self._before.programs}
        pins = self._pins(pids)
        unsure = fresh - found.held.programs if loaded is None else set()
        others = _held_by_others(pids) if unsure or pins else HeldObjects()
        self._add_pins(found, pins, others, pids, loaded)
        proven = {n for each in found.pins.values() for n in each.maps}
        alone = not has_neighbours()
        found.pins |= {p: ids for p, ids in found.unproven.pins.items() if alone or self._is_named(p)}
        pinned_links = {n for each in found.pins.values() for n in each.links}
        self._add_links(found, found.held.links | pinned_links | self._links)
        own = found.held.programs | {each.program_id for each in found.links.values()} - {0}
        own |= {n for each in found.pins.values() for n in each.programs} | (fresh & (loaded or set()))
        candidates = self._infos(n for n in unsure if n not in own and n not in others.programs)
        candidates = {n: info for n, info in candidates.items() if info.load_time <= self._end.boot}
        own |= self._programs & candidates.keys()
        found.programs = self._infos(own)
        if places or candidates:
            infos = (*found.programs.values(), *candidates.values())
            with self._namespaces(pids) as namespaces:
                found.attached = attached_programs({each.type for each in infos}, namespaces)
        attached = {each.program_id for each in found.attached if not is_of_another_process(each.target)}
        found.programs |= {n: info for n, info in candidates.items() if n in attached}
        found.unproven.programs = found.programs.keys() & candidates.keys()
        found.maps = set(found.held.maps)
        found.maps |= {n for each in found.programs.values() for n in each.map_ids}
        self._maps |= found.maps | proven
        found.maps |= {n for each in found.pins.values() for n in each.maps}
        self._programs |= found.programs.keys()
        self.seen |= found.programs
        self._links |= found.links.keys()
        return found

    def _pins(self, pids: list[int]) -> set[Pin]:
        """Returns the pins that came after the beginning."""
        if self._bpffs is None:
            return pins_of(pids[0] if pids else "self") - self._before.pins
        # Its mountinfo shows it, too, but Linux 7.2 gives a warning of UBSAN when it shows delegations.
        return pins_below(pids[0], self._bpffs) if pids else set()

    def _infos(self, ids: Iterable[int]) -> dict[int, ProgramInfo]:
        infos = {number: program_info(number) for number in sorted(set(ids))}
        return {number: info for number, info in infos.items() if info is not None}

    def _add_pins(
        self,
        found: Found,
        pins: Iterable[Pin],
        others: HeldObjects,
        pids: list[int],
        loaded: frozenset[int] | None,
    ) -> None:
        for pin in pins:
            ids = pinned_at(pin.path, pids[0] if pids else "self")
            if ids is None:
                continue
            if self._has(found.held, ids) or self._is_loaded(ids, loaded):
                found.pins[pin.path] = ids
            elif pin.made > self._end.epoch or self._is_foreign(ids, loaded):
                continue
            elif self._is_new(ids, others):
                found.unproven.pins[pin.path] = ids

    def _has(self, held: HeldObjects, ids: HeldObjects) -> bool:
        """Returns whether the processes have, or had, something open that is pinned."""
        programs = held.programs | self._programs
        return bool(
            ids.maps & (held.maps | self._maps)
            or ids.programs & programs
            or ids.links & (held.links | self._links)
        )

    def _is_new(self, ids: HeldObjects, others: HeldObjects) -> bool:
        """Returns whether what is pinned came after the beginning, and no other process has it open."""
        before = self._before
        old = ids.programs & before.programs or ids.links & before.links or ids.maps & before.maps
        return not old and not (ids.programs & others.programs or ids.maps & others.maps)

    def _is_loaded(self, ids: HeldObjects, loaded: frozenset[int] | None) -> bool:
        """Returns whether the processes have loaded the program that is pinned, or has what is pinned."""
        return bool(loaded and self._users(ids) & loaded)

    def _is_foreign(self, ids: HeldObjects, loaded: frozenset[int] | None) -> bool:
        """Returns whether what is pinned belongs to programs that these processes have not loaded."""
        return bool(loaded is not None and self._users(ids))

    def _is_named(self, path: str) -> bool:
        """Returns whether the agent was told the path of a pin, or its folder below a file system's root."""
        folder = os.path.dirname(path)
        names = [path] if os.path.ismount(folder) else [path, folder]
        return any(name in word for word in self._before.words for name in names)

    def _users(self, ids: HeldObjects) -> set[int]:
        """Returns the programs that are pinned or attached by pinned links, and those with pinned maps."""
        found = set(ids.programs)
        if ids.maps:
            infos = self._infos(_ids("prog"))
            found |= {n for n, info in infos.items() if ids.maps.intersection(info.map_ids)}
        return found

    def _add_links(self, found: Found, ids: Iterable[int]) -> None:
        for number in sorted(set(ids)):
            try:
                info = link_by_id(number)
            except AttachError:  # this process may not open it
                continue
            if info is not None:
                found.links[number] = info

    @contextmanager
    def _namespaces(self, pids: Iterable[int]) -> Iterator[list[int]]:
        """Opens the namespaces to look into."""
        paths = [f"/proc/{pid}/ns/net" for pid in pids] + ["/proc/thread-self/ns/net"]
        if os.path.isdir(NETNS_NAMES):
            names = (entry.path for entry in os.scandir(NETNS_NAMES))
            paths += [name for name in names if not is_of_another_process(name)]
        found = {os.fstat(self._netns).st_ino: self._netns}
        with ExitStack() as opened:
            for path in paths:
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    continue
                opened.callback(os.close, fd)
                found.setdefault(os.fstat(fd).st_ino, fd)
            yield list(found.values())

    def close(self) -> None:
        """Closes the namespace and `loads`. Safe to call again."""
        if self._loads:
            self._loads.close()
        fd, self._netns = self._netns, -1
        if fd >= 0:
            forget(fd)
            os.close(fd)


def _held_by_others(pids: Iterable[int]) -> HeldObjects:
    """Returns what processes outside of the tree have open, including this process."""
    found = HeldObjects()
    inside = set(pids)
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in inside:
            found.add(held_by(int(name), perf=False))
    return found


def has_neighbours() -> bool:
    """Returns whether other workers of this run may start agents, too (pytest-xdist)."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1


def _ids(kind: str) -> list[int]:
    try:
        return loaded_ids(kind)
    except OSError:  # without CAP_SYS_ADMIN
        return []
