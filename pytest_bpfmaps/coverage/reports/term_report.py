"""The table on the terminal, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from pytest_bpfmaps.coverage.data import FileCoverage
from pytest_bpfmaps.coverage.decisions import Judged, sums
from pytest_bpfmaps.coverage.view import FileView, View, percent_of

WIDTH = 80
_LEAST_NAME = 16
_HEAD = ("Lines", "Miss", "Branch", "Miss")
_MCDC = ("MC/DC", "Miss")


def lines(view: View, *, missing: bool = False) -> list[str]:
    """Returns the table: a row for each file, and a column for each kernel if there are several."""
    if not view.files:
        return _programs(view)
    kernels = view.kernels if len(view.kernels) > 1 else []
    mcdc = view.has_conditions
    rows = [("File", [*_HEAD, *(_MCDC if mcdc else ()), "Cover", *kernels])]
    rows += [(file.name, [*_numbers(file.total, mcdc=mcdc), *_on(file, kernels)]) for file in view.files]
    totals = _numbers(*(file.total for file in view.files), mcdc=mcdc)
    rows.append(("TOTAL", [*totals, *(_percent(view.percent_on(kernel)) for kernel in kernels)]))
    details = [_details(file, missing=missing) for file in view.files]
    return [*_table(rows, [[], *details, []]), *_programs(view)]


def _table(rows: Sequence[tuple[str, list[str]]], details: Sequence[list[str]]) -> list[str]:
    """Returns the lines of a table. A row takes several lines if it has too many kernels for one."""
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(rows[0][1]))]
    names = min(max(len(name) for name, _ in rows), max(WIDTH - sum(widths) - 2 * len(widths), _LEAST_NAME))
    made = []
    for (name, cells), more in zip(rows, details, strict=True):
        row = _short(name, names).ljust(names)
        for cell, width in zip(cells, widths, strict=True):
            if len(row.rpartition("\n")[2]) + 2 + width > WIDTH:
                row += "\n" + " " * names
            row += f"  {cell:>{width}}"
        made += [*row.splitlines(), *more]
    return made


def _numbers(*files: FileCoverage, mcdc: bool) -> list[str]:
    counts = [count for file in files for count in file.lines.values()]
    branches = [count for file in files for count in file.branches.values()]
    numbers = [len(counts), counts.count(0), len(branches), branches.count(0)]
    if mcdc:
        decided, conditions = sums(*files)
        numbers += [conditions, conditions - decided]
    return [*map(str, numbers), _percent(percent_of(*files))]


def _on(file: FileView, kernels: Iterable[str]) -> list[str]:
    return [_percent(percent_of(file.kernels[k])) if k in file.kernels else "-" for k in kernels]


def _percent(value: float) -> str:
    """Returns a percentage. It is 100 only for all, and 0 only for none."""
    return f"{min(max(round(value), 0 if value == 0 else 1), 100 if value == 100 else 99)}%"


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else "…" + name[1 - width :]


def _details(file: FileView, *, missing: bool) -> list[str]:
    """Returns the lines that did not run, and those with a branch or a condition that is missing."""
    made: list[str] = []
    if missing and file.missing:
        made += _wrapped("missing", _ranges(file.missing, set(file.total.lines)))
    if missing and (partial := file.partial()):
        made += _wrapped("branches", [_ways(file, line) for line in partial])
    if missing and (undecided := [each for each in file.decisions if each.missed]):
        made += _wrapped("never decided alone", [_undecided(each) for each in undecided])
    if file.total.unmeasured:
        made += _wrapped("no MC/DC", [f"{line} {reason}" for line, reason in sorted(file.total.unmeasured)])
    if file.unreachable:
        made += _wrapped(
            "no kernel reaches", _ranges(sorted(file.unreachable), {*file.total.lines, *file.unreachable})
        )
    return made


def _wrapped(what: str, parts: Iterable[str]) -> list[str]:
    indent = " " * (len(what) + 6)
    return textwrap.wrap(
        ", ".join(parts),
        WIDTH,
        initial_indent=f"    {what}: ",
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _ranges(found: Sequence[int], code: set[int]) -> list[str]:
    """Returns ranges such as ``3`` and ``7-9``. Lines without code do not divide a range."""
    groups: list[list[int]] = []
    for line in found:
        if groups and not any(between in code for between in range(groups[-1][1] + 1, line)):
            groups[-1][1] = line
        else:
            groups.append([line, line])
    return [str(first) if first == last else f"{first}-{last}" for first, last in groups]


def _ways(file: FileView, line: int) -> str:
    missed = [branch.outcome for branch, count in file.branches()[line] if not count]
    return f"{line} never {'/'.join(dict.fromkeys(missed))}"


def _undecided(decision: Judged) -> str:
    """Returns a text such as ``8 condition 2 of 3``: a line, and its conditions that never decided alone."""
    numbers = decision.missed
    word = "condition" if len(numbers) == 1 else "conditions"
    return f"{decision.line} {word} {'/'.join(map(str, numbers))} of {len(decision.conditions)}"


def _programs(view: View) -> list[str]:
    """Returns how many programs each engine measured, and the programs that no engine measured."""
    engines = view.engines()
    made = []
    if engines:
        made.append("measured: " + ", ".join(f"{n} {_plural(n)} by {name}" for name, n in engines.items()))
    for program, kernels in view.not_measured():
        where = f" on {', '.join(kernels)}" if len(view.kernels) > 1 else ""
        text = f"not measured: {program.program} of {program.object}{where}: {program.reason or 'no engine'}"
        made += textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return made


def _plural(count: int) -> str:
    return "program" if count == 1 else "programs"
