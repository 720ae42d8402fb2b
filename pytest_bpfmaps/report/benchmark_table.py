"""Shows at the end of a run what `bpf_benchmark` measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def show(terminalreporter: Any, found: Sequence[tuple[str, Any]]) -> None:
    """Prints the table; `found` has tests with their figures as JSON."""
    figures = [(test, parsed) for test, text in found if (parsed := _parsed(text)) is not None]
    if figures:
        terminalreporter.section("BPF benchmarks")
        for line in lines(figures):
            terminalreporter.line(line)


def _parsed(text: Any) -> dict[str, Any] | None:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError):
        return None  # a property of somebody else


def lines(found: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Returns the lines of the table, and below them why figures are unknown."""
    rows = [("test", "program", "ns per run", "spread", "runs", "instructions")]
    reasons: dict[str, None] = {}
    for test, figures in found:
        spread = figures.get("spread")
        rows.append(
            (
                test,
                str(figures.get("program")),
                _number(figures.get("ns")),
                "?" if spread is None else f"{spread:.1%}",
                _number(figures.get("runs") or None),
                _number(figures.get("instructions")),
            )
        )
        reasons |= {f"ns per run are unknown: {why}": None for why in [figures.get("why_no_ns")] if why}
        why = figures.get("why_no_instructions")
        reasons |= {f"instructions are unknown: {why}": None} if why else {}
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = []
    for row in rows:
        left = (f"{cell:<{width}}" for cell, width in zip(row[:2], widths[:2], strict=True))
        right = (f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True))
        texts.append("  ".join((*left, *right)).rstrip())
    return [*texts, *reasons]


def _number(value: Any) -> str:
    return "?" if value is None else f"{value:,.0f}"
