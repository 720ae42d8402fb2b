"""The kinds of reports, one module each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pytest_bpfmaps.coverage.view import View

KINDS = ("term", "term-missing", "html:DIR", "lcov:FILE", "json:FILE", "xml:FILE", "none")
_DEFAULT_TARGETS = {
    "html": "bpf-htmlcov",
    "lcov": "bpf-coverage.lcov",
    "json": "bpf-coverage.json",
    "xml": "bpf-coverage.xml",
}


@dataclass(frozen=True)
class Request:
    """A kind of report, and the file or folder that it is written to (empty: the terminal)."""

    kind: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind


def report_requests(texts: Sequence[str]) -> list[Request]:
    """Reads texts such as ``html:DIR``. Raises `ValueError` for a text that names no report."""
    found = []
    for text in texts:
        kind, _, target = text.partition(":")
        if kind not in {known.partition(":")[0] for known in KINDS}:
            raise ValueError(f"there is no report {text!r}")
        if target and kind not in _DEFAULT_TARGETS:
            raise ValueError(f"{kind} is printed on the terminal, and can't be written to a file")
        found.append(Request(kind, target or _DEFAULT_TARGETS.get(kind, "")))
    return [request for request in found if request.kind != "none"]


@dataclass(frozen=True)
class Report:
    """One report of a view."""

    request: Request
    view: View
    folder: Path
    """The folder to which a relative target belongs."""

    def write(self) -> list[str]:
        """Writes it. Returns the lines for the terminal.

        Raises `OSError`, and ImportError if a library that the report needs is not installed.
        """
        kind = self.request.kind
        module = import_module(f"{__name__}.{kind.partition('-')[0]}_report")
        if not self.request.target:
            lines: list[str] = module.lines(self.view, missing=kind == "term-missing")
            return lines
        target = self.folder / self.request.target
        target.parent.mkdir(parents=True, exist_ok=True)
        module.write(self.view, target)
        return [f"{kind} report: {self.request.target}"]
