"""Measures how long a program runs: by ``BPF_PROG_TEST_RUN``, or attached, by the kernel's statistics.

The time of a run on an emulated CPU says nothing about a real one, so there is none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Self

from pytest_bpfmaps.errors import LoadError, NoValueError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.release import is_emulated
from pytest_bpfmaps.libbpf import check, ffi, lib
from pytest_bpfmaps.libbpf.syscalls import BPF_PROG_LOAD, address, bpf, pack
from pytest_bpfmaps.programs.prog_run import WITHOUT_PACKET
from pytest_bpfmaps.programs.program import Program

EMULATED = "this CPU is emulated: its times say nothing about a real one"
COUNTED = (
    "they include some 70 ns in which the kernel counts runs, because another process wants that, "
    "or because kernel.bpf_stats_enabled is 1"
)
_UNMEASURED = "the kernel does not measure the runs of programs of this type"
_NOT_REPEATED = frozenset({*WITHOUT_PACKET[1:], ProgramType.TRACING})
_RUN_TIME = 0  # BPF_STATS_RUN_TIME
_SAMPLE_NS = 2_000_000  # how long one call of the kernel repeats the program
_LEAST, _MOST = 7, 60  # calls
_SMALL = 0.02  # of the median: then the spread is small enough
_MOST_SECONDS = 2.0
_OVERHEAD_RUNS = 20_000
_XDP_PASS = bytes.fromhex("b700000002000000 9500000000000000")  # r0 = 2; exit


@dataclass(frozen=True, slots=True)
class Times:
    """The time of a run in nanoseconds: the median of some calls, each of many repetitions.

    `spread` is the distance of the quartiles, as a share of the median. `runs` counts all repetitions.
    `samples` has the mean time of a run for each call, in nanoseconds. `note` says what makes them too high.
    """

    ns: float
    spread: float
    runs: int
    samples: tuple[int, ...] = ()
    note: str = ""


def times_of(program: Program, data: Any, ctx: Any, cpu: int | None) -> Times | str:
    """Repeats a program until the spread of its times is small; or returns why that is impossible.

    The kernel gives whole nanoseconds. Raises what `Program.run` raises.
    """
    if is_emulated():
        return EMULATED
    if program.type in _NOT_REPEATED:
        return _UNMEASURED
    counted = program.run_count
    repeat = _repetitions(program, data, ctx, cpu)
    found: list[int] = []
    end = time.monotonic() + _MOST_SECONDS
    while len(found) < _LEAST or (_spread(found) > _SMALL and len(found) < _MOST and time.monotonic() < end):
        found.append(program.run(data, ctx, repeat, cpu).duration_ns)
    note = COUNTED if program.run_count > counted else ""
    return Times(float(median(found)), _spread(found), repeat * len(found), tuple(found), note)


def _repetitions(program: Program, data: Any, ctx: Any, cpu: int | None) -> int:
    """Returns how many repetitions take about a sample's time; the first call warms caches."""
    program.run(data, ctx, 100, cpu)
    one = max(program.run(data, ctx, 1000, cpu).duration_ns, 1)
    return max(_SAMPLE_NS // one, 1)


def _spread(found: list[int]) -> float:
    low, _, high = quantiles(found, n=4)
    middle = median(found)
    return (high - low) / middle if middle else 0.0


class AttachedCost:
    """Measures a program while it runs by real events: from ``with`` to its end.

    ``BPF_ENABLE_STATS`` (Linux 5.8, commit d46edd671a14) has the kernel read its clock before and after each
    run. What that takes itself is measured with an empty program, and taken off.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._fd = -1
        self._before = self._after = (0, 0)
        self._overhead = 0.0

    def __enter__(self) -> Self:
        what, on = "cannot count the runs", f"of {self._program}"
        self._fd = check(int(lib.bpf_enable_stats(_RUN_TIME)), LoadError, what, on=on)
        try:
            self._overhead = _overhead()
            self._before = _counted(self._program.fd)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd >= 0:
            self._after = _counted(self._program.fd)
        self.close()

    def close(self) -> None:
        """Stops the statistics. Safe to call again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def runs(self) -> int:
        """How often the program ran; inside of ``with``, so far."""
        now = _counted(self._program.fd) if self._fd >= 0 else self._after
        return now[1] - self._before[1]

    @property
    def overhead_ns(self) -> float:
        """What the statistics themselves add to a run, in nanoseconds."""
        return self._overhead

    @property
    def ns(self) -> float:
        """The mean time of a run in nanoseconds, without the statistics' own.

        Raises `NoValueError` if the program did not run, or if the CPU is emulated.
        """
        now = _counted(self._program.fd) if self._fd >= 0 else self._after
        runs = now[1] - self._before[1]
        emulated = is_emulated()
        why = EMULATED if emulated else "" if runs else "it did not run"
        if why:
            fix = "run it on the host" if emulated else "trigger its event inside of the 'with' block"
            raise NoValueError("cannot tell the time of a run", on=f"of {self._program}", why=why, fix=fix)
        return max((now[0] - self._before[0]) / runs - self._overhead, 0.0)


def _counted(fd: int) -> tuple[int, int]:
    """Returns nanoseconds and runs of a program."""
    info = ffi.new("struct bpf_prog_info *")
    size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
    check(
        lib.bpf_obj_get_info_by_fd(fd, info, size), LoadError, "cannot read the statistics", on="of a program"
    )
    return int(info.run_time_ns), int(info.run_cnt)


def _overhead() -> float:
    """Returns the mean time that the statistics give for a program that does nothing."""
    code, licence = ffi.from_buffer(_XDP_PASS), ffi.new("char[]", b"GPL")
    where = ("Q", address(code)), ("Q", address(licence))
    fd = bpf(BPF_PROG_LOAD, pack(("I", ProgramType.XDP), ("I", len(_XDP_PASS) // 8), *where))
    try:
        return _mean_of(fd, lambda: _run_empty(fd))
    finally:
        os.close(fd)


def _run_empty(fd: int) -> None:
    packet = ffi.from_buffer(bytes(64))
    settings = ffi.new("struct bpf_test_run_opts *")
    settings.sz = ffi.sizeof("struct bpf_test_run_opts")
    settings.data_in, settings.data_size_in, settings.repeat = packet, 64, _OVERHEAD_RUNS
    check(int(lib.bpf_prog_test_run_opts(fd, settings)), LoadError, "cannot run", on="an empty program")


def _mean_of(fd: int, run: Callable[[], None]) -> float:
    run()  # warms caches
    before = _counted(fd)
    run()
    after = _counted(fd)
    return (after[0] - before[0]) / max(after[1] - before[1], 1)
