"""Defines and measures a benchmark: both sides in turn, several rounds, medians."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any


class Absent(Exception):
    """A peer is not installed; the text says how to get it."""


WALL = "BENCH_WALL"
"""The variable by which ``--wall`` asks for wall time; peers read it, too."""


def now() -> float:
    """Returns seconds of processor time, so that other work on the machine does not count.

    Peers do the same.
    """
    return time.perf_counter() if WALL in os.environ else time.process_time()


Sides = tuple[Callable[[], float], Callable[[], float]]


@dataclass(frozen=True)
class Benchmark:
    """One comparison.

    `start` sets up (the stack closes what it opens), and returns two functions that measure once: ours and
    the peer's. `goal` is what the ratio ours / peer must reach; with `lower`, what it must stay below. It may
    depend on the peer's figure. `unit` is the unit of both figures.
    """

    name: str
    unit: str
    peer_name: str
    goal: float | Callable[[float], float]
    start: Callable[[contextlib.ExitStack], Sides]
    lower: bool = False


def measure(benchmark: Benchmark, rounds: int, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Measures both sides in turn, so that other work on the machine slows both."""
    ours_once, peer_once = benchmark.start(stack)
    ours, peer = [], []
    for _ in range(rounds):
        ours.append(ours_once())
        peer.append(peer_once())
    return judge(benchmark, median(ours), median(peer))


def judge(benchmark: Benchmark, ours: float, peer: float) -> dict[str, Any]:
    """Returns the figures as a line of ``--json``."""
    ratio = ours / peer
    goal = benchmark.goal(peer) if callable(benchmark.goal) else benchmark.goal
    return {
        "name": benchmark.name,
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "peer_name": benchmark.peer_name,
        "unit": benchmark.unit,
        "ratio": round(ratio, 4),
        "goal": round(goal, 4),
        "met": ratio <= goal if benchmark.lower else ratio >= goal,
        "relation": "at most" if benchmark.lower else "at least",
    }
