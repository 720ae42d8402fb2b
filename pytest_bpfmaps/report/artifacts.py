"""Keeps what is worth keeping of each test that fails, below the folder of ``--bpf-artifacts``.

The process of the test collects files into its report, which every kind of worker sends. The process that
gets all reports writes them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpfmaps.errors import shown_lines
from pytest_bpfmaps.matrix.items import KERNEL_PROPERTY, option, properties
from pytest_bpfmaps.matrix.terminal_lines import write_line

if TYPE_CHECKING:
    from pytest_bpfmaps.kernel.kmsg import KernelLog

FILES = "bpf_artifacts"  # the attribute of a report
FACTS = "test.json"
_CONSOLE = "Console of kernel"


def register(config: pytest.Config) -> None:
    """Registers what collects, and where reports arrive what writes. Raises pytest.UsageError."""
    config.pluginmanager.register(Collector(), "bpfmaps-artifact-files")
    if not hasattr(config, "workerinput"):
        folder = Path(config.invocation_params.dir, option(config, "bpf_artifacts"))
        if folder.exists() and not folder.is_dir():
            raise pytest.UsageError(
                f"cannot keep artifacts in {folder}: it is no folder\n  -> name another: --bpf-artifacts=DIR"
            )
        config.pluginmanager.register(Writer(config, folder), "bpfmaps-artifacts")


class Collector:
    """Adds the files of a failing test to its report."""

    def __init__(self) -> None:
        self._log: KernelLog | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Remembers where the kernel's log is now."""
        from pytest_bpfmaps.kernel.kmsg import KernelLog

        try:
            if self._log is None:
                self._log = KernelLog()
            self._log.skip()
        except OSError:  # this user can't read it
            self._log = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Collects the files of a BPF test that failed."""
        report = yield
        if report.failed and KERNEL_PROPERTY in properties(report):
            setattr(report, FILES, self._files(item, call))
        return report

    def _files(self, item: pytest.Item, call: pytest.CallInfo[None]) -> dict[str, bytes]:
        from pytest_bpfmaps.harness import Bpf
        from pytest_bpfmaps.report.artifact_files import collect

        values = list(getattr(item, "funcargs", {}).values())
        error = call.excinfo.value if call.excinfo is not None else None
        files = collect([v for v in values if isinstance(v, Bpf)], values, error)
        lines = self._log.lines() if self._log is not None else []
        if lines:
            files["kernel.log"] = "".join(f"{line}\n" for line in lines).encode()
        files["release"] = os.uname().release.encode()
        return files

    def pytest_unconfigure(self) -> None:
        """Closes the log."""
        if self._log is not None:
            self._log.close()
            self._log = None


class Writer:
    """Writes the files of reports below `folder`: by kernel, file and test."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._written: set[Path] = set()
        self._failed = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the files out of a report, and writes them with the report's text."""
        files = _checked(report.__dict__.pop(FILES, None))
        kernel = properties(report).get(KERNEL_PROPERTY)
        if not report.failed or kernel is None:
            return
        try:
            self._write(report, str(kernel), files)
        except OSError as error:
            self._failed = self._failed or f"{error.strerror or error}: {error.filename or self._folder}"

    def _write(self, report: pytest.TestReport, kernel: str, files: dict[str, bytes]) -> None:
        folder = self._folder / folder_of(kernel, report.nodeid)
        if folder not in self._written:
            if (folder / FACTS).exists():  # of an earlier run
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._written.add(folder)
        release = files.pop("release", b"").decode(errors="replace")
        facts = {"test": report.nodeid, "kernel": kernel, "release": release, "when": report.when}
        made = {FACTS: json.dumps(facts | {"seconds": report.duration}, indent=1).encode()}
        suffix = "" if report.when == "call" else f"-{report.when}"
        made[f"report{suffix}.txt"] = _text(report).encode(errors="backslashreplace")
        for title, text in report.sections:
            if title.startswith(_CONSOLE):
                made["console.txt"] = text.encode(errors="backslashreplace")
        for name, data in (made | files).items():
            path = folder / name
            if folder.resolve() not in path.resolve().parents:  # a guest may send any name
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def pytest_terminal_summary(self) -> None:
        """Says where the files are, and if some could not be written."""
        if self._written:
            count = f"{len(self._written)} test{'s' * (len(self._written) != 1)} that failed"
            write_line(self._config, f"bpfmaps: artifacts of {count} are in {self._folder}")
        if self._failed:
            fix = "make room, or name another folder: --bpf-artifacts=DIR"
            write_line(self._config, f"bpfmaps: not all artifacts were written: {self._failed}\n  -> {fix}")


def _checked(files: object) -> dict[str, bytes]:
    """Returns the files of a report. A guest may send anything in their place."""
    found = files.items() if isinstance(files, dict) else ()
    return {
        name: data
        for name, data in found
        if isinstance(name, str) and "\0" not in name and isinstance(data, bytes)
    }


def _text(report: pytest.TestReport) -> str:
    sections = [f"{f' {title} ':-^80}\n{text}" for title, text in report.sections]
    return shown_lines("\n".join([str(report.longrepr), *sections])) + "\n"


def folder_of(kernel: str, nodeid: str) -> Path:
    """Returns the folder of a test, relative to that of all artifacts. No two tests have the same."""
    from pytest_bpfmaps.report.artifact_files import plain_name

    file, _, test = nodeid.partition("::")
    name, bracket, parameters = test.partition("[")  # a parameter may have colons, as IPv6 addresses have
    parts = [kernel, *file.split("/"), name.replace("::", ".") + bracket + parameters]
    names = [plain_name(part) for part in parts]
    if names != parts:
        names[-1] += f"-{sha256(nodeid.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return Path(*names)
