"""Notes which test executes which lines, and how long each takes."""

from __future__ import annotations

import json
import os
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
    def pytest_runtest_protocol(self, item: pytest.Item) -> object:
        """Names the test that runs from now on. Its fixtures belong to it, too."""
        self._coverage.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Adds up the seconds. A test that fails or skips without a change can't notice one."""
        if report.outcome != "passed":
            self._seconds[report.nodeid] = float("inf")
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes the file. What it has of other files of tests stays."""
        self._coverage.stop()
        data = self._coverage.get_data()
        files = {item.nodeid.partition("::")[0] for item in session.items}
        seconds, lines = self._earlier(files)
        seconds |= {test: each for test, each in self._seconds.items() if each != float("inf")}
        for path in data.measured_files():
            here = lines.setdefault(os.path.relpath(path), {})
            for line, tests in data.contexts_by_lineno(path).items():
                known = here.setdefault(str(line), [])
                known += [test for test in tests if test in seconds]
        self._into.write_text(json.dumps({"seconds": seconds, "lines": lines}))

    def _earlier(self, files: set[str]) -> tuple[dict[str, float], dict[str, dict[str, list[str]]]]:
        if not self._into.exists():
            return {}, {}
        trace = json.loads(self._into.read_text())

        def kept(test: str) -> bool:
            return test.partition("::")[0] not in files

        return {test: seconds for test, seconds in trace["seconds"].items() if kept(test)}, {
            path: {line: [*filter(kept, tests)] for line, tests in lines.items()}
            for path, lines in trace["lines"].items()
        }
