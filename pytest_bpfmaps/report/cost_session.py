"""Collects the costs of programs, from this process or from workers; records and checks them at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pytest_bpfmaps.cost.comparison import (
    Change,
    Tolerances,
    differences,
    grown,
    near_limits,
    partner,
    partner_key,
    table,
    tolerances,
    unloaded,
)
from pytest_bpfmaps.cost.cost_file import CostFileError, merged, read, write
from pytest_bpfmaps.cost.costs import ANY_KERNEL, Cost, Costs, Key, in_order
from pytest_bpfmaps.cost.line_file import merged_lines, path_of, read_lines, write_lines
from pytest_bpfmaps.cost.line_growth import fitting
from pytest_bpfmaps.cost.recorder import Recorder, add_plain
from pytest_bpfmaps.cost.variants import Variants, checked, read_variants
from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import COSTS, is_bpf_item, kernel_of, option, without_kernel
from pytest_bpfmaps.report.measurements import Receiver, SummarySection, Teller, path_option
from pytest_bpfmaps.report.stash_keys import ALL_COSTS

_T = TypeVar("_T")
_PROPERTY = "bpf_cost"  # the property of a report by which a worker tells what it recorded
_MOST = 5


def begin(config: pytest.Config) -> None:
    """Has programs recorded in this process, and the file written where reports arrive.

    Raises pytest.UsageError for options that make no sense.
    """
    settings = Settings(config)
    recorder = Recorder(HOST, settings.variants, settings.lines_wanted(), root=config.rootpath)
    config.stash[COSTS] = recorder
    plugins: list[object] = [MarkedVariants(recorder), Teller(config, _PROPERTY, recorder.take)]
    if not hasattr(config, "workerinput"):
        session = CostSession(settings, recorder)
        config.stash[ALL_COSTS] = session.costs
        plugins += [session, Receiver(_PROPERTY, session.take), session.section]
    for plugin in plugins:
        config.pluginmanager.register(plugin)


def compare(config: pytest.Config, files: Sequence[str]) -> int:
    """Prints how two files differ, and returns the exit code. Raises pytest.UsageError for a file's fault."""
    folder = config.invocation_params.dir
    try:
        before, now = (read(Path(folder, file)) for file in files)
        lines, lines_now = (read_lines(Path(folder, file)) for file in files)
    except CostFileError as error:
        raise pytest.UsageError(error.full_text()) from None
    now = {key: replace(cost, lines=fitting(lines_now, key, cost)) for key, cost in now.items()}
    changes = differences(before, now, lines)
    same = len(now) - len({change.key for change in changes if change.key in now})
    print("\n".join([*(table(changes) if changes else []), f"{_programs(same, 'cost')} the same"]))
    return 0


def _without_lines(path: Path, keys: Sequence[Key]) -> str:
    if any(key.kernel == ANY_KERNEL for key in keys):
        return f"{path.name} is veristat's, which has no C lines: those that cost most are shown"
    return (
        f"{path_of(path).name} has no lines of {_names(keys)}: those that cost most are shown\n"
        f"  -> to see those that grew, record the code before the change again: --bpf-cost={path.name}"
    )


def _names(keys: Sequence[Key]) -> str:
    names = ", ".join(f"{key.object}: {key.program} [{key.kernel}]" for key in keys[:_MOST])
    return f"{names}, and {len(keys) - _MOST} more" if len(keys) > _MOST else names


_OF_ONE = {"cost": "costs", "are": "is"}


def _programs(count: int, verb: str) -> str:
    if count == 1:
        return f"1 program {_OF_ONE.get(verb, verb)}"
    return f"{count} programs {verb}"


class Settings:
    """The values of the options. Raises pytest.UsageError for a wrong value."""

    def __init__(self, config: pytest.Config) -> None:
        self.record = path_option(config, "bpf_cost")
        self.check = path_option(config, "bpf_cost_check")
        self.is_told = bool(self.record or self.check)
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

    def lines_wanted(self) -> Callable[[Key, Cost], bool]:
        """Returns a function that says whether the lines of a program are wanted.

        They are wanted of programs that grew, and of those whose lines a file does not have yet.
        """
        written = self.check if self.update else None
        files = [each for each in dict.fromkeys((self.record, written)) if each]
        known = [(_or_none(read, each) or {}, _or_none(read_lines, each) or {}) for each in files]
        before = _or_none(read, self.check) if self.check and not self.update else None

        def wanted(key: Key, cost: Cost) -> bool:
            if before and grown(key, partner(before, key), cost, self.allowed):
                return True
            return any(costs.get(key) != cost or not fitting(lines, key, cost) for costs, lines in known)

        return wanted


def _or_none(reader: Callable[[Path], _T], path: Path) -> _T | None:
    try:
        return reader(path)
    except CostFileError:
        return None  # the process where reports arrive says so


_PERCENT = "give a percentage, or GLOB=PERCENT"


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


class MarkedVariants:
    """Tells the recorder which variants a test names."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Reads the markers. Raises pytest.UsageError for one that names no global."""
        self._recorder.of_test = {}
        self._recorder.test = without_kernel(item.nodeid, kernel_of(item))
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


class CostSession:
    """Collects the costs. At the end it compares them, writes the file, and shows what grew."""

    def __init__(self, settings: Settings, recorder: Recorder) -> None:
        self._settings, self._recorder = settings, recorder
        self.costs: Costs = {}
        self.section = SummarySection("BPF cost")

    def take(self, found: Any) -> None:
        """Takes what `Recorder.take` returned. A guest's values may be wrong; that is told."""
        try:
            add_plain(self.costs, found["rows"])
            for note in found["notes"]:
                self.section.note(str(note))
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            self.section.fail(f"a guest told wrong costs: {error}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compares and writes. The results of tests stay; only the exit code of a good run changes."""
        if found := self._recorder.take():
            self.take(found)
        if self._settings.is_told and (self.costs or session.exitstatus == pytest.ExitCode.OK):
            self._finish(session)
        self.section.end(session)

    def _finish(self, session: pytest.Session) -> None:
        settings = self._settings
        if not self.costs:
            self.section.note("no cost: the run loaded no program")
            return
        used = {key.variant for key in self.costs}
        for name, values in settings.variants.items():
            if name not in used:
                globals_ = ", ".join(values)
                self.section.note(
                    f"variant {name!r} of bpf_cost_variants: no object has the global {globals_}"
                )
        ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if settings.check is not None:
            self._check(settings.check, ended)
        if settings.record is not None and settings.record != settings.check:
            self._write(settings.record, ended)
        elif settings.record is not None and not settings.update:
            why = f"{settings.record} is not recorded: --bpf-cost-check names it, too"
            self.section.note(f"{why}\n  -> to renew it, add --bpf-cost-update")

    def _check(self, path: Path, ended: bool) -> None:
        try:
            before, lines = read(path), read_lines(path)
        except CostFileError as error:
            if not (self._settings.update and not path.exists()):
                self.section.fail(error.full_text())
                return
            before, lines = {}, {}
        if self._settings.update:
            self._write(path, ended)
            return
        found: list[Change] = []
        unknown, without = [], []
        for key in in_order(self.costs):
            old = partner_key(before, key)
            known = fitting(lines, old, before[old]) if old else ()
            grew = grown(key, before.get(old), self.costs[key], self._settings.allowed, known) if old else []
            without += [old] if old and grew and self.costs[key].lines and not known else []
            found += [*grew, *near_limits(key, self.costs[key], self._settings.limit)]
            unknown += [key] if old is None else []
        if without:
            self.section.note(_without_lines(path, without))
        self._say_absent(f"not in {path.name}", unknown)
        self._say_absent("not loaded in this run", list(unloaded(before, self.costs)))
        if found:
            self.section.lines += table(found)
            count = len({change.key for change in found})
            self.section.fail(
                f"FAILED: {count} of {_programs(len(self.costs), 'cost')} more than {path.name} allows\n"
                f"  -> make {'it' if count == 1 else 'them'} smaller, or accept it: --bpf-cost-update"
            )
        else:
            self.section.lines.append(f"{_programs(len(self.costs), 'cost')} no more than {path.name} allows")

    def _say_absent(self, what: str, keys: Sequence[Key]) -> None:
        if keys:
            self.section.note(f"{_programs(len(keys), 'are')} {what}: {_names(keys)}")

    def _write(self, path: Path, ended: bool) -> None:
        if not ended:
            self.section.note(f"{path} stays as it is: the run was interrupted")
            return
        try:
            costs = merged(read(path) if path.exists() else {}, self.costs)
            lines = merged_lines(read_lines(path), costs)
            changed = write(path, costs) | write_lines(path, lines)
        except CostFileError as error:
            self.section.fail(error.full_text())
            return
        state = "written" if changed else "unchanged"
        self.section.lines.append(f"{_programs(len(self.costs), 'recorded')} in {path}, which is {state}")


__all__ = ["CostSession", "Settings", "Tolerances", "begin", "compare"]
