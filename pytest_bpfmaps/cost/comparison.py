"""Compares costs: what grew more than its tolerance, what came close to a limit, and all differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pytest_bpfmaps.cost.costs import ACCEPTED, ANY_KERNEL, Cost, Costs, Key, in_order
from pytest_bpfmaps.cost.line_growth import MOST, fitting, growths, shown
from pytest_bpfmaps.verifier.figures import INSTRUCTIONS_LIMIT, STACK_LIMIT
from pytest_bpfmaps.verifier.walk import LineCost

NAMES = {
    "insns": "instructions",
    "states": "states",
    "peak": "states at a time",
    "max_states_per_insn": "states per instruction",
    "stack": "bytes of stack",
    "jited": "bytes of machine code",
    "translated": "bytes translated",
}
_CHECKED = ("insns", "states", "stack")
_FEW_STATES = 10  # up to so many additional states do not count as growth


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How much a figure may grow, in percent: `usual`, or that of the first glob of `special` that fits.

    A glob is compared with the program's name, and with ``object:program``, with and without folders.
    """

    usual: float = 5.0
    special: tuple[tuple[str, float], ...] = ()

    def of(self, key: Key) -> float:
        """Returns the tolerance of a program."""
        for glob, percent in self.special:
            objects = key.object, key.object.rpartition("/")[2]
            if any(fnmatchcase(n, glob) for n in (key.program, *(f"{o}:{key.program}" for o in objects))):
                return percent
        return self.usual


def tolerances(texts: Iterable[str]) -> Tolerances:
    """Reads ``5``, ``5%`` and ``GLOB=20%``. Raises ValueError."""
    usual, special = 5.0, []
    for text in texts:
        glob, equals, percent = text.rpartition("=")
        number = float(percent.strip().removesuffix("%"))
        if not number >= 0:  # NaN is no tolerance either
            raise ValueError(text)
        if equals:
            special.append((glob, number))
        else:
            usual = number
    return Tolerances(usual, tuple(special))


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of a program that differs, or that came too close to a limit. `what` names it.

    `lines` are what a table shows below it.
    """

    key: Key
    what: str
    before: str
    now: str
    change: str
    lines: tuple[str, ...] = field(default=())


def partner_key(costs: Costs, key: Key) -> Key | None:
    """Returns the key in `costs` that is of the same program; None if there is none."""
    return key if key in costs else next((other for other in costs if key.fits(other)), None)


def partner(costs: Costs, key: Key) -> Cost | None:
    """Returns the cost in `costs` of the same program; None if there is none."""
    found = partner_key(costs, key)
    return costs[found] if found else None


def grown(
    key: Key, before: Cost | None, now: Cost, allowed: Tolerances, known: Sequence[LineCost] = ()
) -> list[Change]:
    """Returns what grew more than its tolerance. A program that is refused now is one change.

    `known` are the lines of the program before, as far as they were recorded.
    """
    if before is None:
        return []
    if before.verdict == ACCEPTED != now.verdict:
        return [Change(key, "verdict", before.verdict, now.verdict, "")]
    old, new, most = before.all_figures, now.all_figures, allowed.of(key)
    below = lines_below(known, now)
    return [
        _change(key, name, old[name], new[name], below)
        for name in _CHECKED
        if name in old and name in new and _is_more(name, old[name], new[name], most)
    ]


def lines_below(known: Sequence[LineCost], now: Cost) -> tuple[str, ...]:
    """Returns what a table shows below a program: the lines that grew, or those that cost most."""
    if now.why_no_lines:
        return (now.why_no_lines,)
    if not now.lines:
        return ()
    if not known:
        return ("the lines that cost most, in instructions:", *map(str, now.lines[:MOST]))
    grew = growths(known, now.lines)
    if not grew:
        return ("no line costs more instructions than before",)
    return ("the lines that cost more instructions than before:", *shown(grew))


def _is_more(name: str, before: int, now: int, percent: float) -> bool:
    if name == "states" and now - before <= _FEW_STATES:
        return False
    return now > before and now > before * (1 + percent / 100)


def near_limits(key: Key, now: Cost, share: float) -> list[Change]:
    """Returns what is more than `share` percent of a limit of the kernel."""
    if now.verdict != ACCEPTED:
        return []
    deepest, walked = max(now.stack, default=0), now.figures.get("insns", 0)
    figures = [("insns", walked, INSTRUCTIONS_LIMIT), ("stack", deepest, STACK_LIMIT)]
    below = lines_below((), now)
    return [
        Change(key, NAMES[name], f"limit {limit:,}", f"{value:,}", f"{value / limit:.0%} of it", below)
        for name, value, limit in figures
        if value > limit * share / 100
    ]


def differences(
    before: Costs, now: Costs, lines: Mapping[Key, Sequence[LineCost]] | None = None
) -> list[Change]:
    """Returns every figure that differs between two files, and the programs that only one of them has.

    `lines` are those of the first file. Where both files have the lines of a program, the changes have those
    that cost more.
    """
    found: list[Change] = []
    for key in in_order(now):
        other = partner_key(before, key)
        if other is None:
            found.append(Change(key, "program", "-", now[key].verdict, "new"))
            continue
        old = before[other]
        known = fitting(lines or {}, other, old)
        below = lines_below(known, now[key]) if known and now[key].lines else ()
        if old.verdict != now[key].verdict:
            found.append(Change(key, "verdict", old.verdict, now[key].verdict, ""))
        first, second = old.all_figures, now[key].all_figures
        found += [
            _change(key, name, first[name], second[name], below)
            for name in NAMES
            if name in first and name in second and first[name] != second[name]
        ]
    gone = [key for key in before if not any(key.fits(other) for other in now)]
    return [*found, *(Change(key, "program", before[key].verdict, "-", "gone") for key in in_order(gone))]


def _change(key: Key, name: str, before: int, now: int, lines: tuple[str, ...] = ()) -> Change:
    percent = f"{(now - before) / before:+.1%}" if before else f"{now - before:+,}"
    return Change(key, NAMES[name], f"{before:,}", f"{now:,}", percent, lines)


def table(changes: Sequence[Change]) -> list[str]:
    """Returns the lines of a table. Below the figures of a program are the `lines` of its first change."""
    head = ("program", "kernel", "figure", "before", "now", "change")
    rows = [
        (_program(c.key), c.key.kernel.replace(ANY_KERNEL, "-"), c.what, c.before, c.now, c.change)
        for c in changes
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [_row(head, widths)]
    below: tuple[str, ...] = ()
    for index, (change, row) in enumerate(zip(changes, rows, strict=True)):
        lines.append(_row(row, widths))
        below = below or change.lines
        if index + 1 == len(changes) or changes[index + 1].key != change.key:
            lines += [f"    {line}" for line in below]
            below = ()
    return lines


def _program(key: Key) -> str:
    variant = f" [{key.variant}]" if key.variant != "-" else ""
    return f"{key.object}: {key.program}{variant}"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [
        *(f"{c:<{w}}" for c, w in zip(cells[:3], widths[:3], strict=True)),
        *(f"{c:>{w}}" for c, w in zip(cells[3:], widths[3:], strict=True)),
    ]
    return "  ".join(texts).rstrip()


def unloaded(before: Costs, now: Costs) -> Iterator[Key]:
    """Yields the programs of a cost file that the run did not load, for the kernels that the run used."""
    kernels = {key.kernel for key in now}
    yield from (
        k for k in in_order(before) if k.kernel in kernels and not any(k.fits(other) for other in now)
    )
