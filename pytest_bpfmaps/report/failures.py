"""Shows of a failing test the user's own line and our message, and not the inside of this package."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpfmaps.errors import BpfError, ExpectationError, LoaderError, VerifierError

if TYPE_CHECKING:
    from pytest_bpfmaps.harness import Bpf
    from pytest_bpfmaps.objects.program_output import Output
    from pytest_bpfmaps.report.map_changes import Snapshots
    from pytest_bpfmaps.report.program_runs import Runs

PACKAGE = "pytest_bpfmaps."
_SHARED = ("bpf_module", "bpf_session")  # maps of `bpf` are new, so all that they have was added
_BEFORE: pytest.StashKey[tuple[Snapshots, Runs]] = pytest.StashKey()
"""The elements of maps, and the runs of programs, when the test began."""
_HERE = f"{Path(__file__).parents[1]}/"  # `paths` is not imported: a run without BPF tests imports little


def hide(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    """Returns whether a traceback leaves out this package's frames: our errors say what happened
    themselves.
    """
    return isinstance(excinfo.value, BpfError)


class _Library:
    """Leaves out the standard library's frames of one error at a time, that of a test which uses a kernel."""

    error: BaseException | None = None

    def __call__(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        return excinfo.value is self.error

    def hide(self, error: BaseException) -> None:
        """Marks the modules of the standard library that the error went through."""
        self.error = error
        frame = error.__traceback__
        while frame is not None:
            names = frame.tb_frame.f_globals
            if str(names.get("__name__")).partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
                names.setdefault("__tracebackhide__", self)
            frame = frame.tb_next


_LIBRARY = _Library()


def _bpf_fixtures(item: pytest.Item) -> list[Bpf]:
    if "pytest_bpfmaps.harness" not in sys.modules:
        return []
    from pytest_bpfmaps.harness import Bpf

    return [each for each in getattr(item, "funcargs", {}).values() if isinstance(each, Bpf)]


def outputs(item: pytest.Item) -> list[Output]:
    """Returns the objects that collect what the programs of a test's `bpf` fixtures print."""
    return [each.program_output for each in _bpf_fixtures(item)]


def _maps(item: pytest.Item) -> str:
    from pytest_bpfmaps.report.map_contents import section

    try:
        objects = [loaded for each in _bpf_fixtures(item) for loaded in each.loaded]
        return section(objects, *item.stash.get(_BEFORE, ({}, {})))
    except Exception as error:  # the test's own failure must be reported in any case
        return f"the maps can't be shown: {error!r}"


def _shown(log: str, config: pytest.Config) -> str:
    """Returns the whole log with ``-vv``, else the part that is worth reading."""
    if config.get_verbosity() > 1:
        return log
    from pytest_bpfmaps.verifier.log_excerpt import excerpt

    return excerpt(log)


def is_said(output: str, message: str) -> bool:
    """Whether an error's message already has all lines of an output, one below the other and indented."""
    lines = [line.strip() for line in output.strip().splitlines()]
    said = [line.strip() for line in message.splitlines()]
    return any(said[at : at + len(lines)] == lines for at in range(len(said) - len(lines) + 1))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Reads maps and run counts of objects that several tests share: a failing test shows what it changed."""
    shared = [each for name in _SHARED if (each := getattr(item, "funcargs", {}).get(name)) is not None]
    if shared:
        from pytest_bpfmaps.report.map_changes import snapshots
        from pytest_bpfmaps.report.program_runs import runs_of

        objects = [loaded for each in shared for loaded in each.loaded]
        item.stash[_BEFORE] = snapshots(objects), runs_of(objects)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _line(error: BaseException) -> str:
    return str(error) if isinstance(error, BpfError) else f"{type(error).__name__}: {error}"


def _name_the_cause(report: pytest.TestReport, error: BaseException | None) -> None:
    """Has the line of the summary begin with the cause, and not with a module."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None and isinstance(error, BpfError):
        crash.message = str(error)
    elif crash is not None and isinstance(error, BaseExceptionGroup):
        crash.message = "\n".join([crash.message, *map(_line, _leaves(error))])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Cuts the traceback of our errors, and adds a verifier's log as a section."""
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, BpfError):
        # pytest looks for this name in a frame's globals. It is set only now, so a passing run pays nothing.
        for name, module in list(sys.modules.items()):
            if name.startswith(PACKAGE):
                module.__dict__.setdefault("__tracebackhide__", hide)
    if error is not None and (isinstance(error, BpfError) or _bpf_fixtures(item)):
        _LIBRARY.hide(error)
    report = yield
    _LIBRARY.error = None
    _name_the_cause(report, error)
    if report.failed and "pytest_bpfmaps.harness" in sys.modules:
        from pytest_bpfmaps.report.explanations import shorten

        shorten(report.longrepr)
    if isinstance(error, VerifierError | ExpectationError | LoaderError) and error.log:
        report.sections.append(("BPF verifier log", _shown(error.log, item.config)))
    if report.failed and report.when == "call" and _bpf_fixtures(item) and (text := _maps(item)):
        report.sections.append(("BPF maps", text))
    for output in outputs(item):
        if report.when == "setup" and report.passed:
            output.begin()
        elif report.failed:
            said = str(error) if isinstance(error, BpfError) else ""
            report.sections.extend(each for each in output.sections() if not is_said(each[1], said))
    if report.skipped and isinstance(report.longrepr, tuple) and report.longrepr[0].startswith(_HERE):
        # A probe skipped the test. The summary should name the test's file, not ours.
        report.longrepr = (str(item.path), None, report.longrepr[2])  # type: ignore[assignment]
    return report
