"""Notes which test executes which lines, and how long each takes."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest


class Tracer:
    """A plugin of pytest. Its file has the seconds of each test, and the tests of each line."""

    def __init__(self, folders: list[str], into: Path) -> None:
        self._folders = folders
        self._into = into
        self._seconds: dict[str, float] = {}
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
        result = yield
        if nextitem is None or _file(nextitem.nodeid) != _file(item.nodeid):
            self._coverage.stop()
            self._write(_file(item.nodeid))
            self._coverage.erase()
            self._coverage.start()
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Adds up the seconds. A test that fails or skips without a change can't notice one."""
        if report.outcome != "passed":
            self._seconds[report.nodeid] = float("inf")
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        """Ends the trace."""
        self._coverage.stop()

    def _write(self, tests: str) -> None:
        """Adds the tests of one file to the trace. What the trace has of other files stays."""
        data = self._coverage.get_data()
        seconds, lines = self._earlier(tests)
        seconds |= {test: each for test, each in self._seconds.items() if each != float("inf")}
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


def _file(test: str) -> str:
    return test.partition("::")[0]
