"""Under ``ci/test`` a test is skipped only for a reason of ``ci/allowed-skips.txt``, or for a probed feature.

What a test lacks otherwise is a package that ``ci/packages.txt`` should have, and the run fails. A skip for a
package (``apt-get install …``) is never allowed where apt has that package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.matrix.items import MISSING_PROPERTY

LIST = Path(__file__).parents[1] / "ci" / "allowed-skips.txt"


def allowed() -> list[re.Pattern[str]]:
    """The regular expressions of the list. A line has one, and why behind two spaces and a ``#``."""
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    parts = [re.split(r"\s{2,}# ", line, maxsplit=1) for line in lines]
    assert all(len(part) == 2 for part in parts), f"a line of {LIST.name} has no reason"
    return [re.compile(part[0], re.DOTALL) for part in parts]  # a reason may have several lines


def in_apt(reason: str) -> bool:
    """Returns whether a skip is for packages that apt has, so that ``ci/setup`` could have installed them."""
    packages = reason.partition(": apt-get install ")[2].partition(";")[0].split()  # after ; is advice
    return bool(packages) and all(map(_has_package, packages))


@cache
def _has_package(name: str) -> bool:
    apt = shutil.which("apt-cache")
    if apt is None:
        return False
    command = [apt, "show", "--no-all-versions", "--", name]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return "\nFilename:" in shown.stdout or "\nStatus: install ok" in shown.stdout


def pytest_configure(config: pytest.Config) -> None:
    """Looks where reports come together."""
    if os.environ.get("CI_SKIPS") == "listed" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(AllowedSkips(), "allowed-skips")


class AllowedSkips:
    """Skips that are not in the list, by their reasons."""

    def __init__(self) -> None:
        self._allowed = allowed()
        self._others: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a skip for another reason."""
        self._look(report, MISSING_PROPERTY in dict(report.user_properties))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """The same for a whole file."""
        self._look(report, False)

    def _look(self, report: pytest.TestReport | pytest.CollectReport, was_probed: bool) -> None:
        if not report.skipped or was_probed or hasattr(report, "wasxfail"):
            return
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = text.removeprefix("Skipped: ")
        if not any(pattern.fullmatch(reason) for pattern in self._allowed) or in_apt(reason):
            self._others.setdefault(reason, []).append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fails the run."""
        if self._others and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Says which reasons are not allowed."""
        if self._others:
            terminalreporter.section("skips that ci/allowed-skips.txt does not have", red=True)
        for reason, tests in self._others.items():
            terminalreporter.line(f"{reason}: {', '.join(tests)}", red=True)
