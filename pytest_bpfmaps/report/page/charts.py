"""Where the lines, columns and labels of charts are. The templates draw them as SVG.

Places from left to right are percentages of the chart's width, so a chart fits any page. Places from top to
bottom are pixels.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

HEIGHT = 120
_LABEL = 15  # pixels between two labels
_TICKS = 4
_MOST_NAMES = 3
_FEW = 12  # columns; fewer are not wider


@dataclass(frozen=True)
class Point:
    """A value in a chart, with its text."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line of a chart. `number` chooses its look. `label_y` is where its name stands, at the right."""

    number: int
    label: str
    points: Sequence[Point]
    label_y: float

    @property
    def parts(self) -> str:
        """The points as SVG has them, from 0 to 100 from left to right."""
        return " ".join(f"{point.x:.2f},{point.y:.1f}" for point in self.points)


@dataclass(frozen=True)
class LineChart:
    """Values over runs. `summary` says in words what is to be seen; `rows` are the figures."""

    title: str
    summary: str
    ticks: Sequence[tuple[float, str]]
    lines: Sequence[Line]
    runs: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    height: int = HEIGHT


def line_chart(
    title: str,
    runs: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    shown: Callable[[float], str],
) -> LineChart:
    """Returns a chart of at least two runs. `series` have a value for each run, None where it is unknown.

    Series that are the same all the time are one line. `shown` makes the text of a value.
    """
    same: dict[tuple[float | None, ...], list[str]] = {}
    for name, values in series.items():
        same.setdefault(tuple(values), []).append(name)
    known = [value for values in same for value in values if value is not None]
    ticks = nice_ticks(min(known), max(known))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return HEIGHT * (1 - (value - low) / (high - low))

    steps = max(len(runs) - 1, 1)
    points = [
        [Point(100 * at / steps, y(v), f"{runs[at]}: {shown(v)}") for at, v in enumerate(vs) if v is not None]
        for vs in same
    ]
    ends = _apart([each[-1].y for each in points])
    lines = [
        Line(number, _short(names, len(series)), each, end)
        for number, (names, each, end) in enumerate(zip(same.values(), points, ends, strict=True))
    ]
    rows = [(", ".join(names), ["?" if v is None else shown(v) for v in vs]) for vs, names in same.items()]
    said = "; ".join(_summary(", ".join(names), vs, shown) for vs, names in same.items())
    return LineChart(title, f"{title}. {said}", [(y(t), shown(t)) for t in ticks], lines, runs, rows)


def _short(names: Sequence[str], all_of_them: int) -> str:
    """Returns a name for a line that has room beside it; the figures have all names."""
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    rest = len(names) - 1
    return f"all {len(names)}" if len(names) == all_of_them else f"{names[0]} and {rest} more"


def _summary(name: str, values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    where = f"{name}: " if name else ""
    return f"{where}from {shown(known[0])} to {shown(known[-1])} in {len(known)} runs"


def nice_ticks(low: float, high: float) -> list[float]:
    """Returns round numbers around two values, from below the lower to above the higher."""
    if high - low < _TICKS * sys.float_info.min:  # too close to be divided
        low, high = (low - 1, high + 1) if low else (0.0, 1.0)
    rough = (high - low) / (_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * each for each in range(first, last + 1)]


def _apart(wanted: Sequence[float]) -> list[float]:
    """Returns places that are near those that are wanted, and do not cover each other."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = list(wanted)
    for before, at in pairwise(order):
        placed[at] = max(placed[at], placed[before] + _LABEL)
    beyond = max(placed, default=0) - max(HEIGHT, max(wanted, default=0))
    return [place - max(beyond, 0) for place in placed]


@dataclass(frozen=True)
class Column:
    """A run: the parts of its column, from bottom to top, with their outcome."""

    x: float
    width: float
    parts: Sequence[tuple[str, float, float]]
    failed: int
    text: str


def columns(runs: Sequence[tuple[str, Mapping[str, int]]], order: Sequence[str]) -> list[Column]:
    """Returns a column for each run; `order` are the outcomes from bottom to top."""
    most = max((sum(counts.values()) for _, counts in runs), default=0) or 1
    width = 100 / max(len(runs), _FEW)
    made = []
    for at, (label, counts) in enumerate(runs):
        bottom, parts = float(HEIGHT), []
        for outcome in order:
            if count := counts.get(outcome, 0):
                size = max(HEIGHT * count / most, 1.5)
                bottom -= size
                parts.append((outcome, bottom, size))
        said = ", ".join(f"{counts.get(outcome, 0):,} {outcome}" for outcome in order)
        made.append(Column(width * at, width * 0.8, parts, counts.get("failed", 0), f"{label}: {said}"))
    return made


def spark(values: Sequence[float | None], height: int = 20) -> str:
    """Returns the points of a small line without labels; empty for fewer than two values."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    steps, span = max(len(values) - 1, 1), high - low
    return " ".join(
        f"{100 * at / steps:.1f},{2 + (height - 4) * (1 - (value - low) / span if span else 0.5):.1f}"
        for at, value in known
    )
