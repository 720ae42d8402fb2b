"""The class of the fixture `bpf_benchmark`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pytest_bpfmaps.cost.executed_instructions import InstructionCounter
from pytest_bpfmaps.errors import NoValueError
from pytest_bpfmaps.programs.benchmark import AttachedCost, Times, times_of
from pytest_bpfmaps.programs.program import Program

PROPERTY = "bpf_benchmark"
"""The name of the report's property that has the figures of a benchmark."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What a program costs. Figures that are unknown are None; `why_no_ns` and so on then say why.

    `ns`: the median time of a run in nanoseconds. `spread`: the distance of the quartiles, divided by `ns`.
    `runs`: the repetitions. `samples`: the time of a run in each call of the kernel, in nanoseconds.
    `instructions`: machine instructions that one run executes, without helpers. `note`: why `ns` is too high.
    """

    program: str
    ns: float | None = None
    spread: float | None = None
    runs: int = 0
    instructions: int | None = None
    why_no_ns: str = ""
    why_no_instructions: str = ""
    samples: tuple[int, ...] = ()
    note: str = ""


class BenchmarkFixture:
    """Measures programs. `tell` gets the name of a property and a text for the report of the test."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._counter = InstructionCounter()

    def __call__(
        self, program: Program, data: Any = b"", ctx: Any = None, *, cpu: int | None = None
    ) -> Benchmark:
        """Runs a program again and again (``BPF_PROG_TEST_RUN``), and returns what a run costs.

        `data`, `ctx` and `cpu` are those of `Program.run`, which also says which kernels can run what. Times
        are measured on a real CPU until the spread is small, for 2 seconds at most. Instructions are counted
        in emulated guests. Raises what `Program.run` raises.
        """
        times = times_of(program, data, ctx, cpu)
        executed = self._counter.of_run(program.id, lambda: program.run(data, ctx, cpu=cpu))
        known: dict[str, Any] = {"program": program.name}
        if isinstance(times, Times):
            known |= asdict(times)
        else:
            known["why_no_ns"] = times
        known["instructions" if isinstance(executed, int) else "why_no_instructions"] = executed
        found = Benchmark(**known)
        self._tell(PROPERTY, json.dumps(asdict(found)))
        return found

    def attached(self, program: Program) -> AttachedCost:
        """Measures a program that is attached, while a ``with`` block triggers its events."""
        return AttachedCost(program)

    def instructions(self, program: Program, run: Callable[[], Any]) -> int:
        """Returns how many instructions of `program` one call of `run` executes. `run` triggers the program.

        This is for programs that ``BPF_PROG_TEST_RUN`` can't run. It calls `run` four times. Raises
        `NoValueError` outside of emulated guests, and when the calls differ.
        """
        found = self._counter.of_run(program.id, run)
        if isinstance(found, str):
            raise NoValueError("cannot count the executed instructions", on=f"of {program}", why=found)
        return found
