"""Collects the counts of BPF programs' coverage, from this process or from workers, and reports them."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.coverage.collected import Collected
from pytest_bpfmaps.coverage.engines import ENGINES
from pytest_bpfmaps.coverage.reports import KINDS, Report, Request, report_requests
from pytest_bpfmaps.coverage.view import View
from pytest_bpfmaps.matrix.items import kernel_of, option, without_kernel
from pytest_bpfmaps.matrix.measuring import AUTO, counted

_PROPERTY = "bpf_coverage"  # the property of a report by which a worker tells its counts
DATA = ".bpf-coverage.json"


def begin(config: pytest.Config) -> None:
    """Has tests measured in this process, and reports written in the process where reports arrive.

    Raises pytest.UsageError for options that make no sense.
    """
    settings = Settings(config)
    config.pluginmanager.register(Teller(config), "bpfmaps-coverage-teller")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(CoverageSession(config, settings), "bpfmaps-coverage")


class Settings:
    """The values of the options. Raises pytest.UsageError for a wrong value."""

    def __init__(self, config: pytest.Config) -> None:
        engine, context = option(config, "bpf_cov_engine"), option(config, "bpf_cov_context")
        _one_of("--bpf-cov-engine", engine, [AUTO, *ENGINES])
        _one_of("--bpf-cov-context", context, ["", "test"])
        self.append = bool(option(config, "bpf_cov_append"))
        if option(config, "bpf_cov_mcdc") and engine == "blocks":
            raise pytest.UsageError(
                "--bpf-cov-mcdc: the engine blocks does not see conditions\n"
                "  -> leave out --bpf-cov-engine=blocks, or --bpf-cov-mcdc"
            )
        self.patterns = [pattern for pattern in option(config, "bpf_cov") if pattern]
        self.least = _percent(option(config, "bpf_cov_fail_under"))
        try:
            self.reports: list[Request] = report_requests(option(config, "bpf_cov_report"))
        except ValueError as e:
            raise pytest.UsageError(f"--bpf-cov-report: {e}\n  -> known are {', '.join(KINDS)}") from None


def _one_of(name: str, value: str, known: list[str]) -> None:
    if value not in known:
        names = " or ".join(filter(None, known))
        raise pytest.UsageError(f"{name}={value}: there is no such choice\n  -> give {names}")


def _percent(text: str) -> float | None:
    try:
        least = float(text) if text else None
    except ValueError:
        least = -1.0
    if least is not None and not 0 <= least <= 100:
        raise pytest.UsageError(f"--bpf-cov-fail-under={text}: it is no percentage\n  -> give 0 to 100")
    return least


class Teller:
    """Puts the counts of a test into the test's last report, which a worker sends, too."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Adds the counts to the report of the teardown, when the test's objects are closed."""
        report = yield
        if call.when == "teardown":
            found = counted(self._config, without_kernel(item.nodeid, kernel_of(item)))
            if found:
                setattr(report, _PROPERTY, found)
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Has a worker tell what was counted while no test ran."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None and (found := counted(self._config, "")):
            output[_PROPERTY] = found


class CoverageSession:
    """Collects the counts, and reports them at the end."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._collected = Collected(tell=self._say)
        self._notes: list[str] = []
        self._printed: list[str] = []
        self._failure = ""

    def _say(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Takes what a test counted."""
        self._collected.take(getattr(report, _PROPERTY, None))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Takes what a worker counted after its last test."""
        self._collected.take(getattr(node, "workeroutput", {}).get(_PROPERTY))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Makes lines of the counts, and writes the reports. No error here fails a test."""
        self._collected.take(counted(self._config, ""))
        data = Path(os.environ.get("BPF_COVERAGE_FILE", self._config.rootpath / DATA))
        view = View(
            self._collected.coverage(data, append=self._settings.append),
            self._config.rootpath,
            self._settings.patterns,
            tell=self._say,
        )
        for request in self._settings.reports:
            self._write(Report(request, view, self._config.invocation_params.dir), request)
        if not view.files:
            self._say("no coverage: no line of a wanted BPF source was measured")
        least = self._settings.least
        if least is not None and (view.percent < least or not view.files):
            ran = f"{view.percent:.1f} % of the lines ran" if view.files else "nothing was measured"
            self._failure = f"FAILED: {ran}, and {least:g} % are asked for"
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _write(self, report: Report, request: Request) -> None:
        try:
            self._printed += report.write()
        except OSError as e:
            self._say(f"cannot write the coverage report {request}: {e.strerror} ({e.filename})")
        except ImportError as e:
            self._say(f"cannot write the coverage report {request}: {e.msg}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the table, and what could not be measured."""
        if self._printed or self._notes or self._failure:
            terminalreporter.section("BPF coverage")
        for line in self._printed:
            terminalreporter.line(line)
        for note in self._notes:
            for line in note.splitlines():
                terminalreporter.line(line, yellow=True)
        if self._failure:
            terminalreporter.line(self._failure, red=True)
