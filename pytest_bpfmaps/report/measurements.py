"""Brings what tests measured to the process where reports arrive, and shows it in pytest's summary."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.matrix.items import kernel_of, without_kernel


def path_option(config: pytest.Config, name: str) -> Path | None:
    """Returns the path that an option names, from the current folder, or its key, from the root folder."""
    given = config.getoption(name)
    folder = config.invocation_params.dir if given else config.rootpath
    text = given or config.getini(name)
    return Path(folder, text) if text else None


class Teller:
    """Puts what a test measured into the test's last report, which a worker sends, too.

    `take` returns what was measured since its last call, for the test with that id. It returns a false value
    where nothing was. The value is in the attribute `name` of the report, and of a worker's output.
    """

    def __init__(self, config: pytest.Config, name: str, take: Callable[[str], object]) -> None:
        self._config, self._name, self._take = config, name, take

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Adds it to the report of the teardown, when the test's objects are closed."""
        report = yield
        if call.when == "teardown" and (found := self._take(without_kernel(item.nodeid, kernel_of(item)))):
            setattr(report, self._name, found)
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Has a worker tell what was measured while no test ran."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None and (found := self._take("")):
            output[self._name] = found


class Receiver:
    """Gives `take` what each `Teller` of the same `name` sent, in this process, in workers, and in guests."""

    def __init__(self, name: str, take: Callable[[Any], None]) -> None:
        self._name, self._take = name, take

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Takes what a test measured."""
        self._pass_on(getattr(report, self._name, None))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Takes what a worker measured after its last test."""
        self._pass_on(getattr(node, "workeroutput", {}).get(self._name))

    def _pass_on(self, found: Any) -> None:
        if found:
            self._take(found)


class SummarySection:
    """A section of the summary that pytest prints at the end. An empty one is not printed.

    Its `lines` come first, then the notes in yellow, then the failures in red.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self.lines: list[str] = []
        self._notes: list[str] = []
        self._failures: list[str] = []

    def note(self, text: str) -> None:
        """Adds a text about what could not be measured. The same text is shown once."""
        if text not in self._notes:
            self._notes.append(text)

    def fail(self, text: str) -> None:
        """Adds a text about why the run fails."""
        self._failures.append(text)

    def end(self, session: pytest.Session) -> None:
        """Has a good run fail if there is a failure. The results of tests stay."""
        if self._failures and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the section."""
        if not (self.lines or self._notes or self._failures):
            return
        terminalreporter.section(self._title)
        _print(terminalreporter, self.lines)
        _print(terminalreporter, self._notes, yellow=True)
        _print(terminalreporter, self._failures, red=True)


def _print(terminalreporter: Any, texts: Iterable[str], **colour: bool) -> None:
    for text in texts:
        for line in text.splitlines() or [""]:
            terminalreporter.line(line, **colour)
