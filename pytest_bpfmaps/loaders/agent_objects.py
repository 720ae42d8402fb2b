"""What a process has in the kernel, as the test sees it: maps with typed values, programs, links, pins."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

from pytest_bpfmaps.errors import Explanation, MapError
from pytest_bpfmaps.events import PerfEventArrayMap, RingBufMap
from pytest_bpfmaps.kernel.held_objects import HeldObjects
from pytest_bpfmaps.kernel.open_resources import keep
from pytest_bpfmaps.kernel.program_info import ForeignProgram, ProgramInfo, program_info
from pytest_bpfmaps.kernel.run_counts import SharedRunStatistics
from pytest_bpfmaps.loaders.collections import ByName
from pytest_bpfmaps.loaders.kernel_objects import Before, Found, KernelObjects
from pytest_bpfmaps.loaders.leftovers import Leftover, detach_command
from pytest_bpfmaps.loaders.links import AgentLinks, describe_links
from pytest_bpfmaps.loaders.programs import AgentProgram, full_name
from pytest_bpfmaps.loaders.struct_names import with_all_structs
from pytest_bpfmaps.maps import make_map, map_info
from pytest_bpfmaps.maps.classes import open_map_id
from pytest_bpfmaps.maps.foreign_types import foreign_types
from pytest_bpfmaps.objects.any_map import Map

_STATISTICS = SharedRunStatistics()
_LOOK_BEFORE = "look at it before the end"
_KEEP_MAPS = (
    f"{_LOOK_BEFORE}: a map that the test has taken from agent.maps stays readable, until bpf.nothing_left"
)
_UNPROVEN = ", unless another process has made it: the kernel does not tell"


class AgentObjects:
    """Maps, programs, links and pins of a process tree. `on` is the process's name in messages.

    `ended` returns how and when the tree ended, None while it runs. `bpffs` is the folder of a bpf file
    system that only the tree has, or None.

    The kernel counts how often programs run as long as this object is open.
    """

    def __init__(
        self,
        on: str,
        pids: Callable[[], list[int]],
        before: Before,
        netns: int,
        *,
        ended: Callable[[], str | None],
        bpffs: str | None = None,
    ) -> None:
        self._on = on
        self._pids = pids
        self._ended = ended
        self._objects = KernelObjects(before, netns, bpffs)
        self._maps: dict[int, Map] = {}
        self._names: dict[int, str] = {}
        self._counts_runs = False

    def count_runs(self) -> None:
        """Has the kernel count how often programs run, if it may (Linux 5.8)."""
        _STATISTICS.begin()
        self._counts_runs = True

    def note_what_is_held(self) -> None:
        """Notes what the processes have now, before they get a signal: what they pinned is their own then."""
        self._objects.look(self._pids())

    def note_end(self) -> None:
        """Notes that all processes have ended: what comes later is not theirs."""
        self._objects.note_end()

    def maps(self) -> ByName[Map]:
        """Returns the maps. After the processes have ended, these are the maps that were found before."""
        found = self._objects.look(self._pids())
        for map_id in found.maps - self._maps.keys():
            made = self._open(map_id, found)
            if made is not None:
                self._maps[map_id] = made
        running = found.maps if self._pids() else self._maps.keys()
        parts = [each for map_id, each in self._maps.items() if map_id in running]
        users = _users(found.programs.values())
        return ByName(
            "map", self._on, parts, lambda each: _describe(each, users), lambda: self._gone("map", _KEEP_MAPS)
        )

    def _gone(self, what: str, fix: str) -> Explanation | None:
        ended = self._ended()
        return (
            Explanation(f"{ended}, and {what}s that nothing else holds went with it", fix) if ended else None
        )

    def _binaries(self) -> list[Path]:
        return [Path(f"/proc/{pid}/exe") for pid in self._pids()]

    def _open(self, map_id: int, found: Found) -> Map | None:
        try:
            fd = open_map_id(map_id)
        except MapError as e:
            if e.errno == errno.ENOENT:  # it went meanwhile
                return None
            raise
        try:
            info = map_info(fd)
            users = [each for each in found.programs.values() if map_id in each.map_ids]
            types = foreign_types(info, lambda: users)
            codecs = types.codecs and with_all_structs(types.codecs, self._on, self._btf_ids, self._binaries)
            made = make_map(fd, types.info, codecs, name=types.name)
        except BaseException:
            os.close(fd)
            raise
        keep([fd])
        if isinstance(made, RingBufMap | PerfEventArrayMap):
            made.read_elsewhere = True
        return cast(Map, made)

    def _btf_ids(self) -> list[int]:
        programs = self._objects.look(self._pids()).programs.values()
        maps = [map_info(each.fd) for each in self._maps.values()]
        return [*(each.btf_id for each in programs), *(each.btf_id for each in maps)]

    def programs(self) -> ByName[AgentProgram]:
        """Returns the programs."""
        found = self._objects.look(self._pids())
        parts = [
            AgentProgram(self._name(info), info.id, info.type, info.map_ids, info.btf_id)
            for info in found.programs.values()
        ]
        return ByName("program", self._on, parts, str, lambda: self._gone("program", _LOOK_BEFORE))

    def programs_so_far(self) -> list[ForeignProgram]:
        """Returns the programs, and those that were found before and are no longer loaded."""
        self._objects.look(self._pids())
        return [ForeignProgram(self._name(info), info) for info in self._objects.seen.values()]

    def links(self) -> AgentLinks:
        """Returns where programs are attached."""
        found = self._objects.look(self._pids(), places=True)
        pins: dict[int, tuple[str, ...]] = {}
        for path, ids in sorted(found.pins.items()):
            for number in ids.links:
                pins[number] = (*pins.get(number, ()), path)
        return describe_links(found.links.values(), found.held.perf, found.attached, found.programs, pins)

    def pins(self) -> dict[str, str]:
        """Returns what is pinned, by path: ``{"/sys/fs/bpf/agent/counts": "map id 17"}``."""
        found = self._objects.look(self._pids())
        return {path: self._pinned(ids.maps, ids.programs, ids.links) for path, ids in found.pins.items()}

    def left(self) -> list[Leftover]:
        """Returns the programs, links and pins of an agent that has ended. It closes the maps first."""
        self._close_maps()
        found = self._objects.look(self._pids(), places=True)
        alive = found.programs | self._objects.alive()
        names = {number: self._name(info) for number, info in alive.items()}
        links = describe_links(found.links.values(), found.held.perf, found.attached, alive, {})
        places = {(each.program_id, each.type, each.target): each for each in found.attached}
        left = [
            Leftover(
                f"program {each}" + (_UNPROVEN if each.program_id in found.unproven.programs else ""),
                detach_command(each, places.get((each.program_id, each.type, each.target))),
            )
            for each in links
        ]
        self._warn_of({path: ids for path, ids in found.unproven.pins.items() if path not in found.pins})
        for path, ids in sorted(found.pins.items()):
            what = self._pinned(ids.maps, ids.programs, ids.links)
            doubt = _UNPROVEN if path in found.unproven.pins else ""
            left.append(Leftover(f"pin {path} of {what}{doubt}", f"rm {path}"))
        told = {each.program_id for each in links} | {n for ids in found.pins.values() for n in ids.programs}
        for number in sorted(names.keys() - told):
            fix = f"bpftool prog show id {number}"
            left.append(Leftover(f"program {names[number]!r} (id {number}), which something holds", fix))
        return left

    def _warn_of(self, pins: Mapping[str, HeldObjects]) -> None:
        for path, ids in pins.items():
            warnings.warn(
                f"pin {path} of {self._pinned(ids.maps, ids.programs, ids.links)} came while {self._on} ran. "
                "Nobody knows whether it or an agent of another worker (pytest -n) has made it, so "
                "bpf.nothing_left does not count it. Without -n it counts.",
                UserWarning,
                stacklevel=6,
            )

    def _pinned(self, maps: set[int], programs: set[int], links: set[int]) -> str:
        if links:
            return "link " + ", ".join(f"id {number}" for number in links)
        if programs:
            return "program " + ", ".join(map(self._program_name, programs))
        return "map " + ", ".join(f"id {number}" for number in maps)

    def _program_name(self, number: int) -> str:
        info = program_info(number)
        return repr(self._name(info)) if info else f"id {number}"

    def _name(self, info: ProgramInfo) -> str:
        if info.id not in self._names:
            self._names[info.id] = full_name(info)
        return self._names[info.id]

    def _close_maps(self) -> None:
        for each in self._maps.values():
            each.close()
        self._maps.clear()

    def close(self) -> None:
        """Closes the maps, and ends the counting. Safe to call again."""
        self._close_maps()
        if self._counts_runs:
            self._counts_runs = False
            _STATISTICS.end()
        self._objects.close()


def _users(programs: Iterable[ProgramInfo]) -> dict[int, list[str]]:
    users: dict[int, list[str]] = {}
    for each in programs:
        for number in each.map_ids:
            users.setdefault(number, []).append(each.name)
    return users


def _describe(each: Map, users: dict[int, list[str]]) -> str:
    used = ", ".join(users.get(each.id, ()))
    return f"{each!r}, {each.max_entries} entries" + (f", used by {used}" if used else "")
