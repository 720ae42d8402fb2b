"""Collects the counts of BPF programs' coverage, from this process or from workers, and reports them."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from pytest_bpfmaps.coverage.collected import Collected
from pytest_bpfmaps.coverage.engines import ENGINES
from pytest_bpfmaps.coverage.reports import KINDS, Report, Request, report_requests
from pytest_bpfmaps.coverage.view import View
from pytest_bpfmaps.matrix.items import option
from pytest_bpfmaps.matrix.measuring import AUTO, counted
from pytest_bpfmaps.report.measurements import Receiver, SummarySection, Teller
from pytest_bpfmaps.report.stash_keys import COVERAGE

_PROPERTY = "bpf_coverage"  # the property of a report by which a worker tells its counts
DATA = ".bpf-coverage.json"
_SHOWN = 3  # sources in a message


def begin(config: pytest.Config) -> None:
    """Has tests measured in this process, and reports written in the process where reports arrive.

    Raises pytest.UsageError for options that make no sense.
    """
    settings = Settings(config)
    plugins: list[object] = [Teller(config, _PROPERTY, partial(counted, config))]
    if not hasattr(config, "workerinput"):
        session = CoverageSession(config, settings)
        plugins += [session, Receiver(_PROPERTY, session.collected.take), session.section]
    for plugin in plugins:
        config.pluginmanager.register(plugin)


class Settings:
    """The values of the options. Raises pytest.UsageError for a wrong value."""

    def __init__(self, config: pytest.Config) -> None:
        engine, context = option(config, "bpf_cov_engine"), option(config, "bpf_cov_context")
        _one_of("--bpf-cov-engine", engine, [AUTO, *ENGINES])
        _one_of("--bpf-cov-context", context, ["", "test"])
        self.append = bool(option(config, "bpf_cov_append"))
        if option(config, "bpf_cov_mcdc") and engine == "blocks":
            raise pytest.UsageError(
                "--bpf-cov-mcdc: the engine blocks does not see conditions\n"
                "  -> leave out --bpf-cov-engine=blocks, or --bpf-cov-mcdc"
            )
        self.patterns = [pattern for pattern in option(config, "bpf_cov") if pattern]
        for pattern in self.patterns:
            _names_sources(pattern, config.invocation_params.dir, config.rootpath)
        self.least = _percent(option(config, "bpf_cov_fail_under"))
        try:
            self.reports: list[Request] = report_requests(option(config, "bpf_cov_report"))
        except ValueError as e:
            raise pytest.UsageError(f"--bpf-cov-report: {e}\n  -> known are {', '.join(KINDS)}") from None


def _one_of(name: str, value: str, known: list[str]) -> None:
    if value not in known:
        names = " or ".join(filter(None, known))
        raise pytest.UsageError(f"{name}={value}: there is no such choice\n  -> give {names}")


def _names_sources(pattern: str, here: Path, root: Path) -> None:
    """Refuses a GLOB that is a folder or a file of tests, as in ``pytest --bpf-cov tests``."""
    path = pattern.partition("::")[0]
    what, measure = "a file of Python", ""
    if folders := [folder / path for folder in (here, root) if (folder / path).is_dir()]:
        what, inside = "a folder", os.path.relpath(folders[0], root)
        measure = f"measure its sources: --bpf-cov='{os.path.normpath(f'{inside}/*')}'; or "
    elif not path.endswith(".py"):
        return
    raise pytest.UsageError(
        f"--bpf-cov={pattern}: it names {what}, and no BPF source\n"
        f"  -> {measure}run its tests: pytest {pattern} --bpf-cov"
    )


def _percent(text: str) -> float | None:
    try:
        least = float(text) if text else None
    except ValueError:
        least = -1.0
    if least is not None and not 0 <= least <= 100:
        raise pytest.UsageError(f"--bpf-cov-fail-under={text}: it is no percentage\n  -> give 0 to 100")
    return least


class CoverageSession:
    """Collects the counts, and reports them at the end."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self.section = SummarySection("BPF coverage")
        self.collected = Collected(tell=self.section.note)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Makes lines of the counts, and writes the reports. No error here fails a test."""
        self.collected.take(counted(self._config, ""))
        data = Path(os.environ.get("BPF_COVERAGE_FILE", self._config.rootpath / DATA))
        view = View(
            self.collected.coverage(data, append=self._settings.append),
            self._config.rootpath,
            self._settings.patterns,
            tell=self.section.note,
        )
        self._config.stash[COVERAGE] = view
        for request in self._settings.reports:
            self._write(Report(request, view, self._config.invocation_params.dir), request)
        if not view.files:
            self.section.note(self._nothing(view))
        least = self._settings.least
        if least is not None and (view.percent < least or not view.files):
            ran = f"{view.percent:.1f} % of the lines ran" if view.files else "nothing was measured"
            self.section.fail(f"FAILED: {ran}, and {least:g} % are asked for")
        self.section.end(session)

    def _nothing(self, view: View) -> str:
        """Says why the reports are empty."""
        found = [os.path.relpath(path, self._config.rootpath) for path in view.coverage.paths()]
        if not found:
            return "no coverage: no line of a BPF source was measured"
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        sources = f"{', '.join(found[:_SHOWN])}{more}"
        if self._settings.patterns:
            wanted = " and ".join(f"--bpf-cov={pattern}" for pattern in self._settings.patterns)
            why = f"none of the measured sources fits {wanted}: {sources}"
        else:
            why = f"the measured sources are not below the root folder, {self._config.rootpath}: {sources}"
        return f"no coverage: {why}\n  -> give a pattern that fits: --bpf-cov=GLOB"

    def _write(self, report: Report, request: Request) -> None:
        try:
            self.section.lines += report.write()
        except OSError as e:
            why = f"cannot write the coverage report {request}: {e.strerror}"
            self.section.note(f"{why}\n  -> make room, or name another place: --bpf-cov-report=KIND:PLACE")
        except ImportError as e:
            self.section.note(f"cannot write the coverage report {request}: {e.msg}")
