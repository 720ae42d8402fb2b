"""One run of pytest, in a fork of the process that stays."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.matrix import used_sources
from pytest_bpfmaps.matrix.prepared_guests import PREPARED, Prepared
from pytest_bpfmaps.watch.dependencies import Plan, Record, narrowed

_STDLIB = sys.stdlib_module_names
_LIBRARIES = frozenset(
    (
        *("pytest_bpfmaps", "xdist", "execnet", "cffi", "_cffi_backend", "elftools", "filelock"),
        *("platformdirs", "numpy", "pyroute2", "scapy", "hypothesis", "sortedcontainers"),
    )
)
"""Packages that a later run has imported already. The rest is imported anew, so that no change is missed."""


@dataclass(frozen=True)
class Order:
    """What the process that stays has decided for a run.

    The run writes its record to the descriptor `record`. `folders` are watched. `is_first` is false for all
    runs but the first.
    """

    plan: Plan
    record: int
    folders: Sequence[str]
    prepared: Prepared
    is_first: bool


class WatchedRun:
    """A plugin of pytest. It runs what the order says, and records what the tests use."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._record = Record()

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        """Chooses the files, and has failed tests run first."""
        option, plan = config.option, self._order.plan
        config.stash[PREPARED] = self._order.prepared
        if not self._order.is_first:
            option.no_header = True
            if not any(getattr(option, name, True) for name in ("lf", "newfirst", "failedfirst")):
                option.failedfirst = True
                given = config.invocation_params  # workers are given these
                config.invocation_params = replace(given, args=(*given.args, "--failed-first"))
        if not plan.everything and not option.pyargs:  # names of packages are no paths
            config.args[:] = narrowed(config.args, plan.arguments, config.invocation_params.dir)

    def pytest_configure(self, config: pytest.Config) -> None:
        """Records what tests of this process compile."""
        config.pluginmanager.register(used_sources.UsedSources(config), "bpfmaps-used-sources")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tells a worker what to run, and to record what its tests compile."""
        node.workerinput[used_sources.ORDER] = self._wanted()

    def _wanted(self) -> list[list[str]] | None:
        plan = self._order.plan
        return None if plan.everything else [sorted(plan.tests), sorted(map(str, plan.files))]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keeps the tests of the order."""
        for item in items:
            self._record.files[str(item.path)] = item.nodeid.partition("::")[0]
        used_sources.keep_wanted(config, items, self._wanted())

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Notes the files of a worker."""
        for name in {each.partition("::")[0] for each in ids}:
            self._record.files[os.path.abspath(node.config.rootpath / name)] = name

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notes what the code of a file used, and a file that can't be imported."""
        self._note(report)
        name = report.nodeid.partition("::")[0]
        path = Path(os.path.abspath(self._root / name))
        if report.failed and name and path.is_file():
            self._record.files[str(path)] = name

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keeps the root folder."""
        self._root = session.config.rootpath

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what a test used."""
        self._note(report)

    def _note(self, report: Any) -> None:
        self._record.uses += [tuple(each) for each in getattr(report, used_sources.FIELD, ())]

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Notes that the person has pressed Ctrl-C."""
        self._record.interrupted = excinfo.type is KeyboardInterrupt

    def pytest_enter_pdb(self) -> None:
        """Notes that a person has used the debugger, in which Ctrl-C has another meaning."""
        self._record.debugged = True

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Writes the record."""
        record = self._record
        folders = [Path(folder) for folder in self._order.folders]
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            top = name.partition(".")[0]
            if top in _STDLIB or top in _LIBRARIES:
                record.names.append(name)
            elif isinstance(file, str) and any(Path(file).is_relative_to(folder) for folder in folders):
                record.modules.append(file)
        record.guests, record.taken = self._order.prepared.wanted, self._order.prepared.taken
        os.pwrite(self._order.record, json.dumps(vars(record)).encode(), 0)
