"""Shows at the end of a run what `bpf_benchmark` measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_MOST = 1e18  # of any figure: nanoseconds, runs, instructions


def show(terminalreporter: Any, found: Sequence[tuple[str, Any]], note: str = "") -> None:
    """Prints the table, and below it the `note`; `found` has tests with their figures as JSON."""
    figures = [(test, figures) for test, text in found if (figures := parsed(text)) is not None]
    if figures:
        terminalreporter.section("BPF benchmarks")
        for line in lines(figures):
            terminalreporter.line(line)
    for line in note.splitlines():
        terminalreporter.line(line, yellow=True)


def parsed(text: Any) -> dict[str, Any] | None:
    """Returns the figures that a report has as JSON; None for a property that somebody else has set."""
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        return None


def is_number(value: Any) -> bool:
    """Returns whether a figure is a number of a size that a measurement may have. A guest may send any."""
    return isinstance(value, int | float) and abs(value) < _MOST


def lines(found: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Returns the lines of the table, and below them why figures are unknown."""
    table = [("test", "program", "ns per run", "spread", "runs", "instructions")]
    reasons: dict[str, None] = {}
    for test, figures in found:
        table.append(row(test, figures))
        reasons |= {f"ns per run are unknown: {why}": None for why in [figures.get("why_no_ns")] if why}
        why = figures.get("why_no_instructions")
        reasons |= {f"instructions are unknown: {why}": None} if why else {}
        note = figures.get("note")
        reasons |= {f"ns per run of {figures.get('program')}: {note}": None} if note else {}
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    texts = []
    for cells in table:
        left = (f"{cell:<{width}}" for cell, width in zip(cells[:2], widths[:2], strict=True))
        right = (f"{cell:>{width}}" for cell, width in zip(cells[2:], widths[2:], strict=True))
        texts.append("  ".join((*left, *right)).rstrip())
    return [*texts, *reasons]


def row(test: str, figures: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    """Returns the cells of a test: its name, the program, nanoseconds, spread, runs, instructions.

    A guest tells the figures, so they may be anything.
    """
    spread = figures.get("spread")
    return (
        test,
        str(figures.get("program")),
        _number(figures.get("ns")),
        f"{spread:.1%}" if is_number(spread) else "?",
        _number(figures.get("runs") or None),
        _number(figures.get("instructions")),
    )


def _number(value: Any) -> str:
    return f"{value:,.0f}" if is_number(value) else "?"
