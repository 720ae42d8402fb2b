"""Hands figures to pytest-benchmark, which then stores and compares them, and draws its histogram of them.

pytest-benchmark takes figures only from its own fixture, which measures Python functions. So this module adds
figures to the list of its session, to which that fixture adds, too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from typing import Any

import pytest

LEAST = (4, 0)  # the oldest release whose session and figures are known


@dataclass(frozen=True)
class Figure:
    """A benchmark: its samples in seconds, each the mean of `iterations` runs.

    It has the attributes that pytest-benchmark reads of its own fixture.
    """

    name: str
    fullname: str
    group: str
    samples: Sequence[float]
    iterations: int
    extra_info: Mapping[str, Any]
    param: str | None = None
    params: Mapping[str, Any] | None = None
    cprofile_stats: None = field(default=None)
    has_error: bool = False


def is_wanted(config: pytest.Config) -> bool:
    """Returns whether pytest-benchmark is loaded, and nobody has turned it off (``--benchmark-disable``)."""
    if not hasattr(config, "_benchmarksession"):
        return False
    return bool(
        config.getoption("benchmark_enable", False) or not config.getoption("benchmark_disable", False)
    )


def too_old() -> str:
    """Returns why the figures can't be handed over to the installed release; empty where they can."""
    version = metadata.version("pytest-benchmark")
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers >= LEAST:
        return ""
    least = ".".join(map(str, LEAST))
    return (
        f"pytest-benchmark {version} is too old to take the figures of bpf_benchmark\n"
        f"  -> pip install 'pytest-benchmark>={least}'"
    )


def hand_over(config: pytest.Config, figures: Iterable[Figure]) -> None:
    """Adds figures to those of the run. Call it before pytest-benchmark's own hook for the end of a run."""
    session: Any = config._benchmarksession  # type: ignore[attr-defined]
    package = type(session).__module__.partition(".")[0]
    stats: Any = sys.modules.get(f"{package}.stats") or import_module(f"{package}.stats")
    for figure in figures:
        made = stats.Metadata(figure, iterations=figure.iterations, options={})
        for sample in figure.samples:
            made.update(sample * figure.iterations)
        session.benchmarks.append(made)
