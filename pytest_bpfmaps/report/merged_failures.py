"""Shows the same failure on several kernels once, and below it what differs between them."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Generator, Sequence
from difflib import SequenceMatcher
from typing import Any

import pytest

from pytest_bpfmaps.matrix.items import KERNEL_PROPERTY, properties, without_kernel

_MOST = 12  # different lines; what differs in more is shown as a whole
_LONGEST = 500  # lines from the first to the last difference: comparing takes the square of this
_PASSING = re.compile(  # numbers that no two runs have alike: they do not count as a difference
    r"\b0x[0-9a-f]{6,}\b|(?<=\bduration_ns=)\d+|(?<=\bprocess )\d+(?= \()|(?<=\(pid )\d+"
    r"|(?<=\bdescriptor )\d+(?= of a )|(?<=\((?:map|btf) id )\d+|(?<=\((?:prog|link) id )\d+"
)


class MergedFailures:
    """Gives pytest the merged failures to print. Its counts and its summary keep each of them."""

    def __init__(self, config: pytest.Config) -> None:
        self._all: dict[str, list[Any]] = {}
        config.pluginmanager.register(_AfterFailures(self.restore), "bpfmaps-after-failures")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, object, object]:
        """Merges failures before pytest prints them."""
        for kind in ("failed", "error"):
            reports = terminalreporter.stats.get(kind, [])
            if len({reported_kernel(report) for report in reports} - {""}) > 1:
                self._all[kind] = reports
                terminalreporter.stats[kind] = merged(reports)
        try:
            return (yield)
        finally:
            self.restore(terminalreporter)

    def restore(self, terminalreporter: Any) -> None:
        """Puts back all failures. Safe to call again."""
        terminalreporter.stats.update(self._all)
        self._all.clear()


class _AfterFailures:
    """Is called when pytest has printed the failures, and before it counts them."""

    def __init__(self, restore: Any) -> None:
        self._restore = restore

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self._restore(terminalreporter)


def merged(failed: Sequence[Any]) -> list[Any]:
    """Returns the reports with those of the same test merged that differ in the kernel and in a few lines."""
    return [together(group) for group in grouped(failed)]


def grouped(failed: Sequence[Any]) -> list[list[Any]]:
    """Returns in groups what `merged` merges; a report that stays alone is a group, too."""
    groups: dict[tuple[str, str], list[list[Any]]] = {}
    order: list[list[Any]] = []
    for report in failed:
        alike = groups.setdefault((without_kernel(report.nodeid, reported_kernel(report)), report.when), [])
        group = next((each for each in alike if _is_same(each[0], report)), None)
        if group is None:
            group = []
            alike.append(group)
            order.append(group)
        group.append(report)
    return order


def reported_kernel(report: Any) -> str:
    """Returns the kernel that a report is of; empty for a test that is no BPF test."""
    return str(properties(report).get(KERNEL_PROPERTY, ""))


def _is_same(one: Any, other: Any) -> bool:
    if (
        not reported_kernel(one)
        or not reported_kernel(other)
        or reported_kernel(one) == reported_kernel(other)
    ):
        return False
    return differences(str(one.longrepr), str(other.longrepr)) is not None


def differences(one: str, other: str) -> list[str] | None:
    """Returns the lines of `other` that differ from `one`; None if many differ, or if `other` lacks lines.

    It is also None if the first and the last difference are far apart.

    Addresses in memory, numbers of processes and descriptors, and durations do not count.
    """
    before, after = ([_PASSING.sub("0x", line) for line in text.splitlines()] for text in (one, other))
    head = _alike(before, after)
    tail = _alike(before[head:][::-1], after[head:][::-1])
    middle = before[head : len(before) - tail], after[head : len(after) - tail]
    if max(map(len, middle)) > _LONGEST:
        return None
    lines = other.splitlines()[head:]
    found: list[str] = []
    count = 0
    for what, start, end, begin, stop in SequenceMatcher(None, *middle, autojunk=False).get_opcodes():
        if what == "delete":
            return None
        if what != "equal":
            found += lines[begin:stop]
            count += max(end - start, stop - begin)
    return found if count <= min(_MOST, len(before) // 2) else None


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns how many lines at the beginning of both are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def together(group: Sequence[Any]) -> Any:
    """Returns a report with the traceback of the first, and what differs in the others."""
    if len(group) == 1:
        return group[0]
    first = copy.copy(group[0])
    kernels = ", ".join(map(reported_kernel, group))
    path, line, domain = first.location
    first.location = (path, line, f"{domain.removesuffix(reported_kernel(first) + ']')}{kernels}]")
    for report in group[1:]:
        if lines := differences(str(group[0].longrepr), str(report.longrepr)):
            first.longrepr = _with_section(first.longrepr, f"on {reported_kernel(report)}", "\n".join(lines))
    first.sections = _sections(group)
    return first


def _with_section(longrepr: Any, title: str, text: str) -> Any:
    if not hasattr(longrepr, "addsection"):
        return f"{longrepr}\n{title}:\n{text}"
    longer = copy.copy(longrepr)
    longer.sections = [*longrepr.sections, (title, text, "-")]
    return longer


def _sections(group: Sequence[Any]) -> list[tuple[str, str]]:
    """Returns the sections of all: one that all have alike once, others with the kernel in the title."""
    numbered = [_numbered(report) for report in group]
    found: list[tuple[str, str]] = []
    for key in dict.fromkeys(key for sections in numbered for key in sections):
        texts = [(report, *own[key]) for report, own in zip(group, numbered, strict=True) if key in own]
        first, title, text = texts[0]
        if len(texts) == len(group) and len({text for _, _, text in texts}) == 1:
            found.append((title, text))
            continue
        found.append((f"{title} [{reported_kernel(first)}]", text))
        for report, title, other in texts[1:]:
            lines = differences(text, other)
            shown = other if lines is None else "\n".join(lines) or "(the same)"
            found.append((f"{title} [{reported_kernel(report)}]", shown))
    return found


def _numbered(report: Any) -> dict[tuple[str, int], tuple[str, str]]:
    """Returns the title and the text of each section, by its title without numbers that differ in each run.

    Several sections of one report may have such a title, as of two processes: a number tells them apart.
    """
    found: dict[tuple[str, int], tuple[str, str]] = {}
    seen: Counter[str] = Counter()
    for title, text in report.sections:
        alike = _PASSING.sub("0x", title)
        found[alike, seen[alike]] = title, text
        seen[alike] += 1
    return found
