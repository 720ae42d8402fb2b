"""Notes which test executes which lines, and how much processor time each takes."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest


class Tracer:
    """A plugin of pytest. Its file has the processor seconds of each test, and the tests of each line."""

    def __init__(self, folders: list[str], into: Path) -> None:
        self._folders = folders
        self._into = into
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._replaced: set[str] = set()
        self._coverage = coverage.Coverage(
            data_file=None, config_file=False, include=[f"{folder}/*" for folder in folders]
        )

    def pytest_collection_finish(self) -> None:
        """Begins to trace. Lines that run on import belong to no test."""
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Names the test that runs from now on. Its fixtures belong to it, too. Writes after each file."""
        self._coverage.switch_context(item.nodeid)
        before = _processor_seconds()
        result = yield
        if item.nodeid not in self._failed:
            self._seconds[item.nodeid] = _processor_seconds() - before
        if nextitem is None or _file(nextitem.nodeid) != _file(item.nodeid):
            self._coverage.stop()
            self._write(_file(item.nodeid))
            self._coverage.erase()
            self._coverage.start()
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Leaves out a test that fails or skips without a change: it can't notice one."""
        if report.outcome != "passed":
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Ends the trace."""
        self._coverage.stop()

    def _write(self, tests: str) -> None:
        """Adds the tests of one file to the trace. What the trace has of other files stays.

        pytest may run other files between two tests of a file, so a file may be written several times.
        """
        data = self._coverage.get_data()
        seconds, lines = self._earlier("" if tests in self._replaced else tests)
        self._replaced.add(tests)
        seconds |= self._seconds
        self._seconds.clear()
        for path in data.measured_files():
            here = lines.setdefault(os.path.relpath(path), {})
            for line, contexts in data.contexts_by_lineno(path).items():
                known = here.setdefault(str(line), [])
                known += [test for test in contexts if test in seconds]
        self._into.write_text(json.dumps({"seconds": seconds, "lines": lines}))

    def _earlier(self, replaced: str) -> tuple[dict[str, float], dict[str, dict[str, list[str]]]]:
        if not self._into.exists():
            return {}, {}
        trace = json.loads(self._into.read_text())

        def kept(test: str) -> bool:
            return _file(test) != replaced

        return {test: seconds for test, seconds in trace["seconds"].items() if kept(test)}, {
            path: {line: [*filter(kept, tests)] for line, tests in lines.items()}
            for path, lines in trace["lines"].items()
        }


def _processor_seconds() -> float:
    """Returns what this process and its children have used: on a busy machine, a clock says little."""
    return sum(os.times()[:4])


def _file(test: str) -> str:
    return test.partition("::")[0]
