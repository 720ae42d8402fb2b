"""Measures what ``--bpf-cost`` costs: the same loads with a recorder and without one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from statistics import median

from benchmark import Benchmark, Sides, now
from overhead import source

from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.cost.recorder import Recorder
from pytest_bpfmaps.harness import Bpf

MOST = 1.05
TURNS = 200


def recording(stack: contextlib.ExitStack) -> Sides:
    """Measures both sides in turn within each round: two rounds differ by more than the two sides do."""
    path, compiler = source("cost.bpf.c"), LocalCompiler()
    recorder = Recorder("host", {})

    def load(observer: Recorder | None) -> None:
        with Bpf(compiler, [path.parent], observer=observer) as bpf:
            bpf.load("cost.bpf.c")
            if observer is not None:
                observer.take("test")

    load(recorder)

    def both() -> list[float]:
        sides = [(once(lambda: load(recorder)), once(lambda: load(None))) for _ in range(TURNS)]
        return [median(side) for side in zip(*sides, strict=True)]

    figures: list[float] = []

    def mine() -> float:
        figures[:] = both()
        return figures[0]

    return mine, lambda: figures[1]


def once(work: Callable[[], object]) -> float:
    """Returns the milliseconds of one call."""
    began = now()
    work()
    return (now() - began) * 1e3


BENCHMARKS = [Benchmark("cost-recording", "ms", "without a recorder", MOST, recording, lower=True)]
