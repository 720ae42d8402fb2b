"""Makes pytest items of BPF objects alone: one for each object and kernel. `bpfmaps verify` runs them.

It starts pytest with this plugin and a job, a file of JSON: ``objects`` (``path``, ``name``, and ``checked``:
whether its types are known to be sound), ``globals``, ``programs`` (globs), and ``answers``, the file that
gets a line of JSON for each object and kernel.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.default_kernel import refusal
from pytest_bpfmaps.matrix.items import chosen, kernel_of, kernels_here

_PROPERTY = "bpf_verdicts"
_JOB: pytest.StashKey[dict[str, Any]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the option that names the job."""
    parser.addoption("--bpf-verify-job", help="the job of `bpfmaps verify`.")


def job_of(config: pytest.Config) -> dict[str, Any]:
    """Returns the job."""
    if _JOB not in config.stash:
        config.stash[_JOB] = json.loads(Path(config.getoption("bpf_verify_job")).read_text())
    return config.stash[_JOB]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Job | None:
    """Takes the job itself as the file that has the items."""
    if str(file_path) != parent.config.getoption("bpf_verify_job"):
        return None
    return Job.from_parent(parent, path=file_path)


class Job(pytest.File):
    """The items: an object each, once per kernel."""

    def collect(self) -> Iterator[VerifiedObject]:
        """Yields the items."""
        for kernel in kernels_here(self.config, self):
            for number, each in enumerate(job_of(self.config)["objects"]):
                name = f"{number}[{kernel}]" if chosen(self.config) else str(number)
                yield VerifiedObject.from_parent(self, name=name, each=each, kernel=kernel)


class VerifiedObject(pytest.Item):
    """An object; `bpf_kernel` is the name of the kernel that it is for."""

    def __init__(self, *, each: dict[str, Any], kernel: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.each, self.bpf_kernel = each, kernel
        self.verdicts: list[dict[str, Any]] = []

    def runtest(self) -> None:
        """Asks the kernel. A refusal is no failure here; a user that may not ask gets no answer."""
        from pytest_bpfmaps.cost.verdicts import verdicts_of

        if self.bpf_kernel == HOST and (why := refusal()):
            pytest.skip(
                f"BPF programs can't be loaded here: {why}\n  -> run it as root, or name a guest: --kernel"
            )
        job = job_of(self.config)

        def wanted(program: str) -> bool:
            return any(fnmatchcase(program, glob) for glob in job["programs"])

        path = Path(self.each["path"])
        name, checked = self.each["name"], self.each["checked"]
        found = verdicts_of(path, name, job["globals"], wanted, checked=checked)
        self.verdicts = [each.to_plain() for each in found]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts the verdicts into the report, which a guest sends."""
    report = yield
    if call.when == "call" and isinstance(item, VerifiedObject):
        setattr(report, _PROPERTY, {"kernel": kernel_of(item), "verdicts": item.verdicts})
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Listens in the process where reports arrive."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Answers(job_of(config)), "bpfmaps-answers")


class Answers:
    """Writes what the kernels said, as it arrives."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._file = Path(job["answers"])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Writes the verdicts on an object, or why there are none."""
        told = getattr(report, _PROPERTY, None)
        number, _, kernel = report.nodeid.rpartition("::")[2].partition("[")
        facts = {"object": number, "kernel": kernel.rstrip("]")}
        if told is not None and report.passed:
            self._write({**facts, **told})
        elif not report.passed:
            self._write({**facts, "lost": _text(report)})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Writes why a guest ended outside of an object."""
        if report.failed:
            kernel = report.nodeid.removeprefix("kernel ").partition(",")[0]
            self._write({"object": "", "kernel": kernel, "lost": _text(report)})

    def _write(self, facts: dict[str, Any]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(facts) + "\n")


def _text(report: Any) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
