"""Collects what the page of ``--bpf-report`` shows, where reports arrive, and writes it at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.cache.stored_files import write
from pytest_bpfmaps.cost.benchmark import PROPERTY as BENCHMARK
from pytest_bpfmaps.coverage.reports.html_report import environment, lines_of
from pytest_bpfmaps.coverage.view import View
from pytest_bpfmaps.errors import shown_lines
from pytest_bpfmaps.matrix.items import KERNEL_PROPERTY, named_properties, properties
from pytest_bpfmaps.matrix.terminal_lines import write_line
from pytest_bpfmaps.report.benchmark_table import parsed, row
from pytest_bpfmaps.report.kernel_table import FAILED, PASSED, SKIPPED, KernelTable, reason
from pytest_bpfmaps.report.measurements import path_option
from pytest_bpfmaps.report.page import facts, failures, runs
from pytest_bpfmaps.report.page.charts import columns
from pytest_bpfmaps.report.page.runs import Run
from pytest_bpfmaps.report.stash_keys import ALL_COSTS, COVERAGE, USAGES

PAGE = "index.html"
_PACKAGES = ("pytest_bpfmaps.report.page", "pytest_bpfmaps.coverage.reports")
_ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def begin(config: pytest.Config) -> None:
    """Has the page written at the end of the run."""
    folder = path_option(config, "bpf_report")
    if folder is not None and not config.getoption("collectonly"):
        config.pluginmanager.register(PageSession(config, folder), "bpfmaps-page")


class PageSession:
    """Keeps failures, and the outcomes of tests that are no BPF tests; other plugins keep the rest.

    Nothing here changes the result of a test, or the exit code.
    """

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._begun = datetime.now(UTC)
        self._failed: list[Any] = []
        self._others: dict[str, str] = {}  # test -> outcome
        self._reasons: dict[str, str] = {}  # test that is no BPF test -> why it was skipped
        self._benchmarks: list[tuple[str, ...]] = []
        self._said: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keeps what the page needs of a report."""
        if report.failed:
            self._failed.append(report)
        if report.when == "call":
            values = (value for name, value in named_properties(report) if name == BENCHMARK)
            self._benchmarks += [row(report.nodeid, found) for value in values if (found := parsed(value))]
        if KERNEL_PROPERTY in properties(report) or (report.passed and report.when != "call"):
            return
        if self._others.get(report.nodeid) != FAILED:
            outcome = FAILED if report.failed else SKIPPED if report.skipped else PASSED
            self._others[report.nodeid] = outcome
        if report.skipped:
            self._reasons[report.nodeid] = reason(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keeps why a file could not be collected; workers say the same once more."""
        known = ((each.nodeid, str(each.longrepr)) for each in self._failed)
        if report.failed and (report.nodeid, str(report.longrepr)) not in known:
            self._failed.append(report)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Writes the page and the record when all others have ended, and before pytest's summary."""
        result = yield
        try:
            self._write(session)
        except OSError as e:
            self._said.append(
                f"bpfmaps: cannot write the report of this run to {self._folder}: {e.strerror or e}\n"
                "  -> make room, or name another folder: --bpf-report=DIR"
            )
        except ImportError as e:
            self._said.append(f"bpfmaps: cannot write the report of this run: {e.msg}")
        return result

    def pytest_terminal_summary(self) -> None:
        """Says where the page is, or why there is none."""
        for text in self._said:
            write_line(self._config, text)

    def _write(self, session: pytest.Session) -> None:
        made = environment(*_PACKAGES)
        notes: list[str] = []
        past = runs.earlier(self._folder, notes.append)
        ended = session.exitstatus in _ENDED
        if not ended:
            notes.append("The run was interrupted. So not all tests ran, and there is no record of it.")
        text = made.get_template("page.html").render(**self._facts(past, notes, ended=ended))
        write(self._folder / PAGE, text.encode(errors="backslashreplace"))
        self._said += [f"bpfmaps: {note}" for note in notes if ended]
        self._said.append(f"bpfmaps: the report of this run is {self._folder / PAGE}")
        if ended:
            runs.keep(self._folder, self._this_run())

    def _this_run(self) -> Run:
        summary = self._table.summary()
        outcomes = {kernel: Counter[str]() for kernel in summary.kernels}
        for by_kernel in summary.tests.values():
            for kernel, outcome in by_kernel.items():
                outcomes[kernel][outcome] += 1
        if self._others:
            outcomes[""] = Counter(self._others.values())
        view, percents = self._view, {}
        if view is not None:
            percents = {"": view.percent, **{kernel: view.percent_on(kernel) for kernel in view.kernels}}
        costs = {key: replace(cost, lines=()) for key, cost in self._config.stash.get(ALL_COSTS, {}).items()}
        seconds = (datetime.now(UTC) - self._begun).total_seconds()
        return Run(self._begun, round(seconds, 3), outcomes, percents, costs)

    @property
    def _table(self) -> KernelTable:
        found = self._config.pluginmanager.get_plugin("bpfmaps-kernels")
        assert isinstance(found, KernelTable)
        return found

    @property
    def _view(self) -> View | None:
        view = self._config.stash.get(COVERAGE, None)
        return view if view is not None and view.files else None

    def _facts(self, past: list[Run], notes: list[str], *, ended: bool) -> Mapping[str, Any]:
        from pytest_bpfmaps.cost import map_usage

        now, summary, view = self._this_run(), self._table.summary(), self._view
        sums = [(facts.when(run.begun), _sums(run)) for run in ([*past, now] if ended else past)]
        costs, usages = self._config.stash.get(ALL_COSTS, {}), self._config.stash.get(USAGES, {})
        together = [*past, now] if ended else past
        features, other_skips = facts.skips(summary, self._reasons)
        charts, changed = facts.cost_charts(costs, together)
        shown = failures.failures(self._failed, summary.tests)
        return {
            "name": shown_lines(self._config.rootpath.name or "/"),
            "notes": notes,
            "begun": facts.when(now.begun),
            "run": now,
            "summary": summary,
            "kernels": list(summary.kernels),
            "files": facts.test_files(summary),
            "others": Counter(self._others.values()),
            "failures": shown,
            "failed_tests": failures.count_of_tests(self._failed),
            "shown_tests": len({each.test for each in shown}),
            "features": features,
            "other_skips": other_skips,
            "view": view,
            "lines": {file.path: list(lines_of(view, file)) for file in view.files} if view else {},
            "links": {file.path: f"#file-{at}" for at, file in enumerate(view.files, 1)} if view else {},
            "percent_chart": facts.percent_chart(together, view.kernels if view else []),
            "costs": facts.cost_rows(costs, together, list(summary.kernels)),
            "cost_charts": charts,
            "changed": changed,
            "figures": facts.FIGURES,
            "runs": together,
            "columns": columns(sums, (PASSED, SKIPPED, FAILED)),
            "maps": map_usage.rows(usages, everything=True),
            "map_notes": map_usage.notes(usages),
            "benchmarks": self._benchmarks,
            "when": facts.when,
        }


def _sums(run: Run) -> dict[str, int]:
    return {outcome: run.count(outcome) for outcome in (PASSED, SKIPPED, FAILED)}
