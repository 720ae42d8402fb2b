"""Shows a run that pytest-xdist distributes as pytest shows any other run: each test has one line."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_bpfmaps.compat.pytest_names import report_without_workers, stopping_reason


def write_line(config: pytest.Config, text: str) -> None:
    """Writes `text` on a line of its own, not after the letters of tests. Does nothing without a terminal."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is None:
        return
    terminal.ensure_newline()
    writer = config.get_terminal_writer()
    if writer.width_of_current_line:  # letters; pytest does not count them as a line that was begun
        writer.line()
    terminal.write_line(text)


class TerminalLines:
    """Keeps workers out of what the terminal shows: the id of a test says its kernel already."""

    def __init__(self, config: pytest.Config) -> None:
        self._terminal = config.pluginmanager.getplugin("terminalreporter")
        if self._terminal is not None:
            self._terminal.showfspath = False  # tests of several files run at a time
            report_without_workers(config, self._terminal)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> Generator[None, object, object]:
        """Leaves out the line about the worker above a failure, which pytest prints later."""
        result = yield
        vars(report).pop("node", None)
        return result

    @pytest.hookimpl(trylast=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Shows why pytest-xdist stops, in place of its exception."""
        if isinstance(self._terminal, pytest.TerminalReporter) and excinfo.type is not KeyboardInterrupt:
            stopping_reason(self._terminal, str(excinfo.value))
