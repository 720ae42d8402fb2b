"""Gives what `bpf_benchmark` measured to pytest-benchmark, where that is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pytest_bpfmaps.compat.pytest_benchmark_names import Figure, hand_over, is_wanted, too_old
from pytest_bpfmaps.report.benchmark_table import is_number, parsed

TIMES = "BPF programs"
INSTRUCTIONS = "BPF programs, executed instructions: 1 ns stands for one"
_NS = 1e-9
_FACTS = ("program", "ns", "spread", "runs", "instructions")


def store(config: pytest.Config, found: Sequence[tuple[str, Any]]) -> tuple[int, str]:
    """Gives pytest-benchmark the figures of tests; `found` has them as JSON.

    Returns how many it took, and why it can't take any. It takes none where it is turned off.
    """
    if not is_wanted(config):
        return 0, ""
    if why := too_old():
        return 0, why
    figures = list(figures_of(found))
    hand_over(config, figures)
    return len(figures), ""


def figures_of(found: Sequence[tuple[str, Any]]) -> Iterator[Figure]:
    """Gives a benchmark for the times of each measured program, and one for its instructions.

    A test that measures a program several times has a number behind its name. A guest tells the figures, so
    they may be anything.
    """
    seen: dict[str, int] = {}
    for test, text in found:
        known = parsed(text)
        if known is None:
            continue
        name = f"{test}: {known.get('program')}"
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name} ({seen[name]})"
        samples = _numbers(known.get("samples"))
        if samples:
            iterations = max(_whole(known.get("runs")) // len(samples), 1)
            yield _figure(name, TIMES, [each * _NS for each in samples], iterations, known)
        instructions = _whole(known.get("instructions"))
        if instructions:
            yield _figure(f"{name}, instructions", INSTRUCTIONS, [instructions * _NS], 1, known)


def _figure(name: str, group: str, samples: list[float], iterations: int, known: dict[str, Any]) -> Figure:
    extra = {each: value for each, value in known.items() if each in _FACTS}
    return Figure(name.rpartition("::")[2], name, group, samples, iterations, extra)


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list) else []
    return [float(each) for each in values if is_number(each)]


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and is_number(value) else 0
