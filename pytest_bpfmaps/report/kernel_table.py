"""Shows at the end of a run on several kernels a table of test files by kernel, and what ran on none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import (
    KERNEL_PROPERTY,
    MISSING_PROPERTY,
    SELECTION,
    chosen,
    may_never_run,
    properties,
    without_kernel,
)

if TYPE_CHECKING:
    from pytest_bpfmaps.report.summary_file import Summary

LEGEND = "F failed, s skipped"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_MOST_ROWS = 30
_SHORT = {PASSED: "", FAILED: "F", SKIPPED: "s"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the option and its key of the configuration file."""
    text = "write the table of test files by kernel to FILE: as JSON (.json), else appended as Markdown"
    parser.getgroup("bpfmaps").addoption("--bpf-summary", metavar="FILE", default=None, help=text + ".")
    parser.addini("bpf_summary", text, type="string", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the table in the process where the reports of all workers arrive."""
    if not hasattr(config, "workerinput"):
        table = KernelTable(config)
        config.pluginmanager.register(table, "bpfmaps-kernels")
        config.pluginmanager.register(LastLine(table), "bpfmaps-last-line")


class KernelTable:
    """Outcomes by kernel. The table is shown when tests were for more than one kernel."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._outcomes: dict[str, dict[str, str]] = {}  # test without its kernel -> kernel -> outcome
        self._unsupported: dict[str, set[str]] = {}  # test -> kernels that lack what it needs
        self._reasons: dict[str, dict[str, str]] = {}  # test -> kernel -> why it failed or was skipped
        self._missing: dict[str, dict[str, list[str]]] = {}  # feature -> test -> kernels
        self._seen: dict[str, None] = {}
        self._unwritten = ""  # why there is no summary

    @property
    def kernels(self) -> list[str]:
        """The kernels that tests were for, in the order of the choice; guests may report in any order."""
        order = {kernel: place for place, kernel in enumerate(chosen(self._config))}
        return sorted(self._seen, key=lambda kernel: order.get(kernel, len(order)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what became of a BPF test on a kernel. The test failed if any part of it did."""
        found = properties(report)
        kernel = str(found.get(KERNEL_PROPERTY, ""))
        if not kernel or (report.passed and report.when != "call"):
            return
        self._seen[kernel] = None
        test = without_kernel(report.nodeid, kernel)
        outcomes = self._outcomes.setdefault(test, {})
        if outcomes.get(kernel) != FAILED:
            outcomes[kernel] = FAILED if report.failed else SKIPPED if report.skipped else PASSED
        if report.failed or report.skipped:
            self._reasons.setdefault(test, {}).setdefault(kernel, reason(report))
        if report.skipped and MISSING_PROPERTY in found:
            feature = str(found[MISSING_PROPERTY])
            self._missing.setdefault(feature, {}).setdefault(test, []).append(kernel)
            self._unsupported.setdefault(test, set()).add(kernel)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fails a run in which no kernel of several could run some test, and writes the summary."""
        self._register_for_failures(session)
        if self.never_ran() and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._config.getoption("bpf_summary") or self._config.getini("bpf_summary"):
            self._write_summary()

    def _write_summary(self) -> None:
        from pytest_bpfmaps.report.measurements import path_option

        path = path_option(self._config, "bpf_summary")
        if path is None or not self.kernels:
            return
        try:
            self.summary().write(path, [*self.rows(), ["all", *map(_cell, self._sums())]])
        except OSError as error:
            fix = "make room, or name another file: --bpf-summary=FILE"
            self._unwritten = f"bpfmaps: cannot write the summary to {path}: {error.strerror}\n  -> {fix}"

    def _register_for_failures(self, session: pytest.Session) -> None:
        """Registers what changes how failures are shown. It is imported only where something failed."""
        manager = session.config.pluginmanager
        if len(self.kernels) > 1 and any(FAILED in each.values() for each in self._outcomes.values()):
            from pytest_bpfmaps.report.merged_failures import MergedFailures

            manager.register(MergedFailures(session.config), "bpfmaps-merged-failures")
        if session.testsfailed and os.environ.get("GITHUB_ACTIONS") == "true":
            from pytest_bpfmaps.report.github import Annotations

            manager.register(Annotations(session.config), "bpfmaps-github")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the table (with ``-q`` only its sums), and the lines that a person should look at."""
        for line in self._unwritten.splitlines():
            terminalreporter.line(line, yellow=True)
        if len(self.kernels) < 2:
            return
        quiet = terminalreporter.verbosity < 0
        on_github = os.environ.get("GITHUB_ACTIONS") == "true"
        if on_github:
            terminalreporter.line("::group::tests by kernel")
        terminalreporter.section(f"tests by kernel ({LEGEND})")
        head = ["", *self.kernels]
        shown = [head, *([] if quiet else self._short_rows()), ["all", *map(_cell, self._sums())]]
        widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
        for row in shown:
            cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            terminalreporter.line("  ".join(cells).rstrip())
        if on_github:
            terminalreporter.line("::endgroup::")
        for line in self.differences():
            terminalreporter.line(line, yellow=True)
        for test in self.never_ran():
            terminalreporter.line(f"{test}: ran on no kernel, each lacks something it needs", red=True)

    def rows(self) -> list[list[str]]:
        """Returns rows of a file's path and its counts on each kernel: ``12``, ``12 1F 2s``.

        Files with failures come first.
        """
        return [self._row(file, count) for file, count in self._sorted_counts()]

    def _short_rows(self) -> list[list[str]]:
        """Returns `rows`; of many files, those in which all tests passed are one row."""
        counts = self._sorted_counts()
        if len(counts) <= _MOST_ROWS:
            return self.rows()
        folded = [count for _, count in counts if _all_passed(count)]
        rows = [self._row(file, count) for file, count in counts if not _all_passed(count)]
        if folded:
            sums = {k: sum((count[k] for count in folded), Counter[str]()) for k in self.kernels}
            files = "1 file" if len(folded) == 1 else f"{len(folded)} files"
            rows.append(self._row(f"{files} in which all passed", sums))
        return rows

    def _row(self, name: str, count: dict[str, Counter[str]]) -> list[str]:
        return [name, *(_cell(count[k]) for k in self.kernels)]

    def _sorted_counts(self) -> list[tuple[str, dict[str, Counter[str]]]]:
        def place(entry: tuple[str, dict[str, Counter[str]]]) -> tuple[bool, str]:
            file, count = entry
            return not any(one[FAILED] for one in count.values()), file

        return sorted(self._counts().items(), key=place)

    def differences(self) -> list[str]:
        """Returns a line for each test that failed on a kernel and passed on another."""
        lines, kernels = [], self.kernels
        for test, outcomes in self._outcomes.items():
            failed = [k for k in kernels if outcomes.get(k) == FAILED]
            passed = [k for k in kernels if outcomes.get(k) == PASSED]
            if failed and passed:
                more = f" and on {', '.join(failed[1:])}" if failed[1:] else ""
                lines.append(f"{test}: failed first on {failed[0]}{more}, passed on {', '.join(passed)}")
        return lines

    def never_ran(self) -> list[str]:
        """Returns the tests that no kernel of several could run, without those of ``bpf_allow_never_ran``."""
        if len(self.kernels) < 2:
            return []
        return [
            test
            for test, kernels in self._unsupported.items()
            if set(self._outcomes[test]) == kernels and not may_never_run(self._config, test)
        ]

    def _counts(self) -> dict[str, dict[str, Counter[str]]]:
        counts: dict[str, dict[str, Counter[str]]] = {}
        kernels = self.kernels
        for test, outcomes in self._outcomes.items():
            file = counts.setdefault(test.partition("::")[0], {k: Counter() for k in kernels})
            for kernel, outcome in outcomes.items():
                file[kernel][outcome] += 1
        return counts

    def _sums(self) -> list[Counter[str]]:
        counts = self._counts()
        return [sum((file[k] for file in counts.values()), Counter()) for k in self.kernels]

    def summary(self) -> Summary:
        """Returns all results of the run."""
        from pytest_bpfmaps.report.summary_file import Summary

        releases = {HOST: os.uname().release}
        if SELECTION in self._config.stash:
            guests = self._config.stash[SELECTION].guests
            releases |= {guest.kernel.name: guest.kernel.release for guest in guests}
        return Summary(
            kernels={kernel: releases.get(kernel, "") for kernel in self.kernels},
            files=self._counts(),
            tests=self._outcomes,
            reasons=self._reasons,
            missing=self._missing,
            legend=LEGEND,
            differences=self.differences(),
            never_ran=self.never_ran(),
        )


class LastLine:
    """Says at the end why the run failed although no test failed."""

    def __init__(self, table: KernelTable) -> None:
        self._table = table

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, object, object]:
        """Prints the line after all that others print."""
        result = yield
        if count := len(self._table.never_ran()):
            tests, them = ("a test", "it") if count == 1 else (f"{count} tests", "them")
            terminalreporter.line(f"FAILED: {tests} ran on no kernel", red=True)
            terminalreporter.line(
                f"  -> add a kernel that has what is missing, or list {them} in bpf_allow_never_ran", red=True
            )
        return result


def reason(report: pytest.TestReport) -> str:
    """Returns in one line why a test failed or was skipped."""
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        return longrepr[2].removeprefix("Skipped: ")
    crash = getattr(longrepr, "reprcrash", None)
    text = str(longrepr or "") if crash is None else crash.message
    return next(iter(text.strip().splitlines()), "")


def _all_passed(count: dict[str, Counter[str]]) -> bool:
    return not any(one[FAILED] or one[SKIPPED] for one in count.values())


def _cell(counts: Counter[str]) -> str:
    """Returns ``12`` for passed, ``1F`` for failed, and ``2s`` for skipped tests, joined."""
    return " ".join(f"{counts[o]}{mark}" for o, mark in _SHORT.items() if counts[o]) or "-"
