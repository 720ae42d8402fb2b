"""Collects the costs of programs, from this process or from workers; records and checks them at the end."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.cost.comparison import (
    Change,
    Tolerances,
    differences,
    grown,
    near_limits,
    partner,
    table,
    tolerances,
    unloaded,
)
from pytest_bpfmaps.cost.cost_file import CostFileError, merged, read, write
from pytest_bpfmaps.cost.costs import Costs, in_order
from pytest_bpfmaps.cost.recorder import Recorder, add_plain
from pytest_bpfmaps.cost.variants import Variants, checked, read_variants
from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import COSTS, is_bpf_item, kernel_of, option, without_kernel

_PROPERTY = "bpf_cost"  # the property of a report by which a worker tells what it recorded
_MOST = 5


def begin(config: pytest.Config) -> None:
    """Has programs recorded in this process, and the file written where reports arrive.

    Raises pytest.UsageError for options that make no sense.
    """
    settings = Settings(config)
    recorder = Recorder(HOST, settings.variants, settings.before(), settings.allowed)
    config.stash[COSTS] = recorder
    config.pluginmanager.register(Teller(config, recorder), "bpfmaps-cost-teller")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(CostSession(config, settings, recorder), "bpfmaps-cost")


def compare(config: pytest.Config, files: Sequence[str]) -> int:
    """Prints how two files differ, and returns the exit code. Raises pytest.UsageError for a file's fault."""
    folder = config.invocation_params.dir
    try:
        before, now = (read(Path(folder, file)) for file in files)
    except CostFileError as error:
        raise pytest.UsageError(str(error)) from None
    changes = differences(before, now)
    same = len(now) - len({change.key for change in changes if change.key in now})
    print("\n".join([*(table(changes) if changes else []), f"{same} programs cost the same"]))
    return 0


class Settings:
    """The values of the options. Raises pytest.UsageError for a wrong value."""

    def __init__(self, config: pytest.Config) -> None:
        self.record = _path(config, "bpf_cost")
        self.check = _path(config, "bpf_cost_check")
        self.update = bool(config.getoption("bpf_cost_update") or config.getini("bpf_cost_update"))
        if self.update and self.check is None:
            raise pytest.UsageError("--bpf-cost-update: no file is named\n  -> add --bpf-cost-check=FILE")
        self.allowed = _read(
            tolerances, "--bpf-cost-tolerance", option(config, "bpf_cost_tolerance"), _PERCENT
        )
        (self.limit,) = _read(
            _shares, "--bpf-cost-limit", [option(config, "bpf_cost_limit")], "give 1 to 100"
        )
        self.variants: Variants = _read(
            read_variants,
            "bpf_cost_variants",
            config.getini("bpf_cost_variants"),
            "write NAME: GLOBAL=VALUE, …",
        )

    def before(self) -> Costs | None:
        """Returns the costs to compare with; None where there are none, or they can't be read here."""
        try:
            return read(self.check) if self.check else None
        except CostFileError:
            return None  # the process where reports arrive says so


_PERCENT = "give a percentage, or GLOB=PERCENT"


def _path(config: pytest.Config, name: str) -> Path | None:
    given = config.getoption(name)
    folder = config.invocation_params.dir if given else config.rootpath
    text = given or config.getini(name)
    return Path(folder, text) if text else None


def _read(reader: Any, name: str, texts: Any, fix: str) -> Any:
    try:
        return reader(texts)
    except ValueError as error:
        raise pytest.UsageError(f"{name}: {error} can't be read\n  -> {fix}") from None


def _shares(texts: Sequence[str]) -> list[float]:
    shares = [float(text.removesuffix("%")) for text in texts]
    if not all(0 < share <= 100 for share in shares):
        raise ValueError(texts[0])
    return shares


class Teller:
    """Puts the costs of a test into the test's last report, which a worker sends, too."""

    def __init__(self, config: pytest.Config, recorder: Recorder) -> None:
        self._config, self._recorder = config, recorder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Tells the recorder which variants the test names."""
        self._recorder.of_test = {}
        if not is_bpf_item(item):
            return
        for mark in item.iter_markers("bpf_cost_variants"):
            try:
                self._recorder.of_test |= checked(mark.kwargs)
            except ValueError as error:
                raise pytest.UsageError(
                    f"bpf_cost_variants of {item.nodeid}: {error} names no globals\n"
                    "  -> bpf_cost_variants(large={'rounds': 100})"
                ) from None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Adds the costs to the report of the teardown."""
        report = yield
        if call.when == "teardown":
            found = self._recorder.take(without_kernel(item.nodeid, kernel_of(item)))
            if found:
                setattr(report, _PROPERTY, found)
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Has a worker tell what was recorded while no test ran."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None and (found := self._recorder.take()):
            output[_PROPERTY] = found


class CostSession:
    """Collects the costs. At the end it compares them, writes the file, and shows what grew."""

    def __init__(self, config: pytest.Config, settings: Settings, recorder: Recorder) -> None:
        self._config, self._settings, self._recorder = config, settings, recorder
        self._costs: Costs = {}
        self._lines: list[str] = []
        self._notes: list[str] = []
        self._failures: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Takes what a test recorded."""
        self._take(getattr(report, _PROPERTY, None))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Takes what a worker recorded after its last test."""
        self._take(getattr(node, "workeroutput", {}).get(_PROPERTY))

    def _take(self, found: Any) -> None:
        if not found:
            return
        try:
            add_plain(self._costs, found["rows"])
            self._notes += [str(note) for note in found["notes"] if note not in self._notes]
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            self._failures.append(f"a guest told wrong costs: {error}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compares and writes. The results of tests stay; only the exit code of a good run changes."""
        self._take(self._recorder.take())
        if self._costs or session.exitstatus == pytest.ExitCode.OK:
            self._finish(session)
        if self._failures and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _finish(self, session: pytest.Session) -> None:
        settings = self._settings
        if not self._costs:
            self._notes.append("no cost: the run loaded no program")
            return
        used = {key.variant for key in self._costs}
        for name, values in settings.variants.items():
            if name not in used:
                globals_ = ", ".join(values)
                self._notes.append(
                    f"variant {name!r} of bpf_cost_variants: no object has the global {globals_}"
                )
        ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if settings.check is not None:
            self._check(settings.check, ended)
        if settings.record is not None and settings.record != settings.check:
            self._write(settings.record, ended)

    def _check(self, path: Path, ended: bool) -> None:
        try:
            before = read(path)
        except CostFileError as error:
            if not (self._settings.update and not path.exists()):
                self._failures.append(str(error))
                return
            before = {}
        if self._settings.update:
            self._write(path, ended)
            return
        found: list[Change] = []
        unknown = []
        for key in in_order(self._costs):
            old = partner(before, key)
            found += grown(key, old, self._costs[key], self._settings.allowed)
            found += near_limits(key, self._costs[key], self._settings.limit)
            unknown += [key] if old is None else []
        self._say_absent(
            path, f"not in {path.name}", [f"{k.object}: {k.program} [{k.kernel}]" for k in unknown]
        )
        gone = list(unloaded(before, self._costs))
        self._say_absent(
            path, "not loaded in this run", [f"{k.object}: {k.program} [{k.kernel}]" for k in gone]
        )
        if found:
            self._lines += table(found)
            count = len({change.key for change in found})
            self._failures.append(
                f"FAILED: {count} of {len(self._costs)} programs cost more than {path.name} allows\n"
                "  -> make them smaller, or accept it: --bpf-cost-update"
            )
        else:
            self._lines.append(f"{len(self._costs)} programs cost no more than {path.name} allows")

    def _say_absent(self, path: Path, what: str, names: list[str]) -> None:
        if names:
            more = f", and {len(names) - _MOST} more" if len(names) > _MOST else ""
            self._notes.append(f"{len(names)} programs are {what}: {', '.join(names[:_MOST])}{more}")

    def _write(self, path: Path, ended: bool) -> None:
        if not ended:
            self._notes.append(f"{path} stays as it is: the run was interrupted")
            return
        try:
            old = read(path) if path.exists() else {}
            changed = write(path, merged(old, self._costs))
        except CostFileError as error:
            self._failures.append(str(error))
            return
        state = "written" if changed else "unchanged"
        self._lines.append(f"{len(self._costs)} programs recorded in {path}, which is {state}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the table, and what could not be recorded."""
        if self._lines or self._notes or self._failures:
            terminalreporter.section("BPF cost")
        for line in self._lines:
            terminalreporter.line(line)
        for note in self._notes:
            for line in note.splitlines():
                terminalreporter.line(line, yellow=True)
        for failure in self._failures:
            for line in failure.splitlines():
                terminalreporter.line(line, red=True)


__all__ = ["CostSession", "Settings", "Teller", "Tolerances", "begin", "compare"]
