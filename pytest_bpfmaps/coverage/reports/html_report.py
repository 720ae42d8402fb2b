"""HTML pages that load no other files: an index, and a page for each source file. Made with Jinja2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_bpfmaps.coverage.data import Branch
from pytest_bpfmaps.coverage.decisions import Judged, sums
from pytest_bpfmaps.coverage.reports.report_file import put
from pytest_bpfmaps.coverage.view import FileView, View, percent_of

_NO_NAME = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True)
class Line:
    """A line of a page. `kind` is ``hit``, ``part``, ``miss``, ``excluded``, ``unreachable``, or empty."""

    number: int
    text: str
    kind: str
    count: int | None
    kernels: list[int | None]
    branches: list[str]
    conditions: list[str]
    tests: list[str]


def write(view: View, target: Path) -> None:
    """Writes the pages into the folder `target`. Raises `OSError`, and ImportError without Jinja2."""
    made = environment("pytest_bpfmaps.coverage.reports")
    target.mkdir(parents=True, exist_ok=True)
    pages = {file.path: f"{_NO_NAME.sub('_', file.name)}.html" for file in view.files}
    for number, (path, name) in enumerate(pages.items()):
        if list(pages.values()).count(name) > 1:
            pages[path] = f"{number}-{name}"
    facts = {"view": view, "links": {path: quote(name) for path, name in pages.items()}}
    _render(made, "index.html", target / "index.html", facts)
    for file in view.files:
        more = {"file": file, "lines": list(lines_of(view, file))}
        _render(made, "file.html", target / pages[file.path], {**facts, **more})


def environment(*packages: str) -> Any:
    """Returns Jinja2's environment for the templates of `packages`. Raises ImportError without Jinja2.

    If several packages have a template of the same name, the first one's is used.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader
    except ImportError as e:
        raise ImportError("Jinja2 is not installed\n  -> pip install 'pytest-bpfmaps[html]'") from e
    loader = ChoiceLoader([PackageLoader(package) for package in packages])
    made = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.globals.update(percent_of=percent_of, bar=_bar, sums=sums)
    return made


def _render(environment: Any, template: str, path: Path, facts: dict[str, Any]) -> None:
    put(path, environment.get_template(template).render(**facts))


def _bar(percent: float) -> str:
    """Returns the CSS class for a percentage, which gives the bar its colour."""
    return "high" if percent >= 90 else "middle" if percent >= 60 else "low"


def lines_of(view: View, file: FileView) -> Iterator[Line]:
    """Yields the lines of a file, from the first to the last."""
    tests, branches = view.tests_of(file.path), file.branches()
    conditions: dict[int, list[str]] = {}
    for decision in file.decisions:
        conditions.setdefault(decision.line, []).extend(_undecided(decision))
    for line, reason in sorted(file.total.unmeasured):
        conditions.setdefault(line, []).append(f"conditions are not recorded: {reason}")
    partial = {*file.partial(), *(line for line in conditions if file.total.lines.get(line))}
    last = max([len(file.text), *file.total.lines])
    for number in range(1, last + 1):
        count = file.total.lines.get(number)
        text = file.text[number - 1] if number <= len(file.text) else ""
        yield Line(
            number,
            text.expandtabs(8),
            _kind(file, number, number in partial),
            count,
            [file.kernels[k].lines.get(number) if k in file.kernels else None for k in view.kernels],
            [_way(branch, taken) for branch, taken in branches.get(number, ())] if count else [],
            conditions.get(number, []) if count else [],
            sorted(tests.get(number, ())),
        )


def _kind(file: FileView, number: int, partial: bool) -> str:
    if number in file.excluded:
        return "excluded"
    if number in file.unreachable:
        return "unreachable"
    count = file.total.lines.get(number)
    if count is None:
        return ""
    return "miss" if not count else "part" if partial else "hit"


def _undecided(decision: Judged) -> Iterator[str]:
    """Yields a sentence for each condition that was not seen to decide alone, then the values seen."""
    for number in decision.missed:
        one = decision.conditions[number - 1]
        where = (
            f"column {one.column}" if one.line == decision.line else f"line {one.line}, column {one.column}"
        )
        yield f"condition {number} ({where}): never seen to decide alone"
    if decision.missed:
        seen = ", ".join(vector.replace("=", " = ") for vector in decision.vectors)
        yield f"values seen of the {len(decision.conditions)} conditions: {seen or 'none'}"


def _way(branch: Branch, count: int) -> str:
    where = f"columns {branch.condition}" if "-" in branch.condition else f"condition {branch.condition}"
    return f"{where}: {branch.outcome} {count} times"
