"""Collects what tests filled their maps with, from this process or from workers; shows a table at the end."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_bpfmaps.cost.map_recorder import MapRecorder
from pytest_bpfmaps.cost.map_usage import Usages, add_plain, notes, table
from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import MAP_USAGE, is_bpf_item, kernel_of, without_kernel
from pytest_bpfmaps.report.stash_keys import USAGES

_PROPERTY = "bpf_map_usage"  # the property of a report by which a worker tells what it saw
_WIDER = frozenset({"bpf_module", "bpf_session"})


def begin(config: pytest.Config, *, shown: bool = True) -> None:
    """Has maps looked at in this process, and where reports arrive the table `shown` at the end."""
    recorder = MapRecorder(HOST, config.rootpath)
    config.stash[MAP_USAGE] = recorder
    config.add_cleanup(recorder.close)
    config.pluginmanager.register(Teller(config, recorder), "bpfmaps-map-usage-teller")
    if not hasattr(config, "workerinput"):
        session = MapUsageSession(recorder, shown=shown, everything=config.get_verbosity() > 0)
        config.stash[USAGES] = session.usages
        config.pluginmanager.register(session, "bpfmaps-map-usage")


def expected_entries(item: pytest.Item) -> dict[str, int]:
    """Returns the most entries that a test expects, by the map's name. Raises pytest.UsageError."""
    found: dict[str, int] = {}
    for mark in item.iter_markers("bpf_map_entries"):
        wrong = [name for name, most in mark.kwargs.items() if not isinstance(most, int) or most < 0]
        if wrong or mark.args:
            raise pytest.UsageError(
                f"bpf_map_entries of {item.nodeid}: {wrong or mark.args} names no number of entries\n"
                "  -> bpf_map_entries(connections=10)"
            )
        found = {**mark.kwargs, **found}
    return found


class Teller:
    """Puts what was seen into the test's last report, which a worker sends, too."""

    def __init__(self, config: pytest.Config, recorder: MapRecorder) -> None:
        self._config, self._recorder = config, recorder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Tells the recorder which test runs, and what it expects."""
        is_bpf = is_bpf_item(item)
        name = without_kernel(item.nodeid, kernel_of(item)) if is_bpf else item.nodeid
        self._recorder.begin(name, expected_entries(item) if is_bpf else {})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Looks at objects that stay open; those of the test alone are looked at when they are closed."""
        result = yield
        if not _WIDER.isdisjoint(getattr(item, "fixturenames", ())):
            self._recorder.look_at_open()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Adds what was seen to the report of the teardown."""
        report = yield
        if call.when == "teardown" and (found := self._recorder.take()):
            setattr(report, _PROPERTY, found)
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Has a worker tell what it saw while no test ran."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None and (found := self._recorder.take()):
            output[_PROPERTY] = found


class MapUsageSession:
    """Collects what was seen. At the end it shows the table, if that is to be `shown`."""

    def __init__(self, recorder: MapRecorder, *, shown: bool, everything: bool) -> None:
        self._recorder, self._shown, self._everything = recorder, shown, everything
        self.usages: Usages = {}
        self._notes: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Takes what a test's maps had."""
        self._take(getattr(report, _PROPERTY, None))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Takes what a worker saw after its last test."""
        self._take(getattr(node, "workeroutput", {}).get(_PROPERTY))

    def _take(self, found: Any) -> None:
        if not found:
            return
        try:
            add_plain(self.usages, found["rows"])
            self._notes |= dict.fromkeys(map(str, found["notes"]))
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            self._notes[f"a guest told wrong figures of maps: {error}"] = None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Takes what was seen while no test ran."""
        self._take(self._recorder.take())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the table, and what is unknown."""
        if not self._shown:
            return
        terminalreporter.section("BPF maps")
        lines = table(self.usages, everything=self._everything)
        for line in lines:
            terminalreporter.line(line)
        if not lines:
            count = len({(key.object, key.map) for key in self.usages})
            seen, them = ("1 map was", "it") if count == 1 else (f"{count} maps were", "them")
            terminalreporter.line(f"{seen} looked at, and there is nothing to say about {them}")
        for note in [*notes(self.usages), *self._notes]:
            terminalreporter.line(note, yellow=True)
