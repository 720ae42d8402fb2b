"""Annotates failures for GitHub Actions: at the line of the test, and at the line of C that was refused.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands has the format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.matrix.items import KERNEL_PROPERTY, properties, without_kernel

_C_LINE = re.compile(r"([^\s:'\"()]+\.(?:c|h)):(\d+)(?!\d*:\d+: (?:note|warning):)")
_OTHERS = "pytest_github_actions_annotate_failures"  # this plugin annotates the test's line already


@dataclass(frozen=True)
class _Place:
    file: str
    line: int
    test: str
    message: str


class Annotations:
    """Prints ``::error`` lines at the end. A failure on several kernels is one of them, with their names."""

    def __init__(self, config: pytest.Config) -> None:
        self._root = Path(os.environ.get("GITHUB_WORKSPACE") or config.rootpath)
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the annotations. GitHub takes them out of the log."""
        kernels: dict[_Place, list[str]] = {}
        for category in ("failed", "error"):
            for report in terminalreporter.stats.get(category, ()):
                kernel = str(properties(report).get(KERNEL_PROPERTY, ""))
                for place in self._places(report, without_kernel(report.nodeid, kernel)):
                    kernels.setdefault(place, []).append(kernel)
        for place, names in kernels.items():
            where = f" [{', '.join(dict.fromkeys(names))}]" if any(names) else ""
            facts = {"file": place.file, "line": str(place.line), "title": place.test + where}
            listed = ",".join(f"{key}={_escaped(value, more=True)}" for key, value in facts.items())
            terminalreporter.line(f"::error {listed}::{_escaped(place.message)}")

    def _places(self, report: Any, test: str) -> Iterator[_Place]:
        crash = getattr(report.longrepr, "reprcrash", None)
        message = str(report.longrepr) if crash is None else str(crash.message)
        for file, line in _C_LINE.findall(message):
            path = self._config.invocation_params.dir / file
            if path.is_file() and path.resolve().is_relative_to(self._root.resolve()):
                yield _Place(self._relative(path), int(line), test, message)
                break
        if self._config.pluginmanager.has_plugin(_OTHERS):
            return
        if crash is not None and Path(crash.path).is_file():
            yield _Place(self._relative(Path(crash.path)), crash.lineno, test, message)
        elif location := getattr(report, "location", None):
            file, line, _ = location
            yield _Place(self._relative(self._config.rootpath / file), (line or 0) + 1, test, message)

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self._root)


def _escaped(text: str, *, more: bool = False) -> str:
    """Returns `text` as workflow commands take it; `more` is for a property."""
    signs = {"%": "%25", "\r": "%0D", "\n": "%0A"} | ({":": "%3A", ",": "%2C"} if more else {})
    return "".join(signs.get(sign, sign) for sign in text)
