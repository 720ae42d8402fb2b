"""The failures of a run as the page tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_bpfmaps.errors import shown_lines
from pytest_bpfmaps.matrix.items import without_kernel
from pytest_bpfmaps.report.kernel_table import PASSED, reason
from pytest_bpfmaps.report.merged_failures import grouped, reported_kernel, together

MOST_TESTS = 200
MOST_CHARACTERS = 40_000
_STEPS = {"setup": "before the test", "teardown": "after the test", "collect": "while it was collected"}


@dataclass(frozen=True)
class Failure:
    """A failure of a test, on the kernels on which it was the same.

    `lines` are pytest's text; a line's first part says whether it is the cause. `sections` are output, logs
    and maps, each with its title.
    """

    number: int
    test: str
    kernels: Sequence[str]
    passed: Sequence[str]
    step: str
    message: str
    lines: Sequence[tuple[str, str]]
    sections: Sequence[tuple[str, str]]


def failures(reports: Sequence[Any], tests: Mapping[str, Mapping[str, str]]) -> list[Failure]:
    """Returns the failures of the first `MOST_TESTS` tests. `tests` has the outcomes by test and kernel."""
    names: dict[str, None] = {}
    wanted = []
    for report in reports:
        name = without_kernel(report.nodeid, reported_kernel(report))
        if name in names or len(names) < MOST_TESTS:  # a test may fail on another kernel much later
            names[name] = None
            wanted.append(report)
    return [_failure(number, group, tests) for number, group in enumerate(grouped(wanted), 1)]


def count_of_tests(reports: Sequence[Any]) -> int:
    """Returns how many tests failed, each counted once for all kernels."""
    return len({without_kernel(report.nodeid, reported_kernel(report)) for report in reports})


def _failure(number: int, group: Sequence[Any], tests: Mapping[str, Mapping[str, str]]) -> Failure:
    report = together(group)
    test = without_kernel(group[0].nodeid, reported_kernel(group[0]))
    passed = [kernel for kernel, outcome in tests.get(test, {}).items() if outcome == PASSED]
    return Failure(
        number,
        shown_lines(test),
        [kernel for each in group if (kernel := reported_kernel(each))],
        passed,
        _STEPS.get(getattr(report, "when", "collect"), ""),
        shown_lines(reason(group[0])),
        list(_lines(cut(shown_lines(str(report.longrepr or ""))))),
        [(shown_lines(title), cut(shown_lines(text))) for title, text in report.sections if text.strip()],
    )


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Gives lines with their kind: pytest marks the cause by an E, and the line that failed by a >."""
    for line in text.splitlines():
        yield {"E  ": "cause", ">  ": "here"}.get(line[:3], ""), line


def cut(text: str) -> str:
    """Returns a text without the middle of what is very long, and says so there."""
    if len(text) <= MOST_CHARACTERS:
        return text
    half = MOST_CHARACTERS // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n… {left_out:,} characters are left out here …\n{text[-half:]}"
