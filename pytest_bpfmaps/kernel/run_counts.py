"""Counts how often programs ran during a test, by the kernel's run counts.

``BPF_ENABLE_STATS`` (Linux 5.8, commit d46edd671a14) returns a descriptor. The kernel counts as long as
that is open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self
from weakref import WeakSet

from pytest_bpfmaps.libbpf import ffi, lib

_RUN_TIME = 0  # BPF_STATS_RUN_TIME
_MOST_MAPS = 64


class Countable(Protocol):
    """A program of this process."""

    name: str

    @property
    def fd(self) -> int:
        """The program's descriptor; raises `ValueError` if the program is closed."""

    @property
    def attached(self) -> bool:
        """Whether the program is attached now."""


@dataclass(frozen=True, slots=True)
class Runs:
    """How often a program ran."""

    name: str
    count: int
    attached: bool


LOADED: WeakSet[Countable] = WeakSet()
"""The programs that this process has loaded."""


class RunStatistics:
    """Has the kernel count the runs of all programs, from `start` to `close`.

    Meanwhile, each run of a program takes longer: 70 ns on a processor of 2024. The kernel counts no call
    of an extension program (``freplace``) or of an ``lsm_cgroup`` program, and no tail call.
    """

    def __init__(self) -> None:
        self._fd = -1

    @property
    def are_on(self) -> bool:
        """Whether the kernel counts. It does not where it lacks the statistics or refuses them."""
        return self._fd >= 0

    def start(self) -> None:
        """Begins to count. Safe to call again."""
        if self._fd < 0:
            self._fd = int(lib.bpf_enable_stats(_RUN_TIME))

    def close(self) -> None:
        """Stops the counting. Safe to call again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count meanwhile, so that the time of a run is the program's own."""
        were_on = self.are_on
        self.close()
        try:
            yield
        finally:
            if were_on:
                self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


STATISTICS = RunStatistics()
"""Those of this process: a run of tests with programs keeps them on."""


class SharedRunStatistics:
    """The run statistics of several users, with one descriptor: they are on until the last one ends."""

    def __init__(self) -> None:
        self._statistics = RunStatistics()
        self._users = 0

    def begin(self) -> None:
        """Begins to count for one more user, who calls `end` once."""
        self._users += 1
        self._statistics.start()

    def end(self) -> None:
        """Stops the counting for one user."""
        self._users -= 1
        if not self._users:
            self._statistics.close()


class RunCounts:
    """Counts how often programs run from now on, if the kernel allows it; `close` stops the counting."""

    def __init__(self) -> None:
        self._fd = int(lib.bpf_enable_stats(_RUN_TIME))
        self._before = {p: _look(p)[0] for p in list(LOADED)} if self._fd >= 0 else {}

    def of_map(self, map_id: int) -> list[Runs] | None:
        """Returns the counts of this process's programs that use a map; None if the kernel does not count."""
        if self._fd < 0:
            return None
        found = []
        for program in list(LOADED):
            count, maps = _look(program)
            if map_id in maps:
                found.append(Runs(program.name, count - self._before.get(program, 0), program.attached))
        return sorted(found, key=lambda runs: runs.name)

    def close(self) -> None:
        """Stops the counting. Safe to call again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _look(program: Countable) -> tuple[int, list[int]]:
    """Returns the run count of a program and the ids of its maps; (0, []) for a closed program."""
    info = ffi.new("struct bpf_prog_info *")
    size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
    maps = ffi.new("uint32_t[]", _MOST_MAPS)
    info.nr_map_ids = _MOST_MAPS
    info.map_ids = int(ffi.cast("uintptr_t", maps))
    try:
        if lib.bpf_obj_get_info_by_fd(program.fd, info, size) < 0:
            return 0, []
    except ValueError:
        return 0, []
    return int(info.run_cnt), list(maps[0 : min(info.nr_map_ids, _MOST_MAPS)])
