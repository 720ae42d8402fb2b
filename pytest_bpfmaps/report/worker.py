"""In a process that pytest-xdist started for one kernel: collect what is its own, say which test runs."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.plugin import HOST, kernel_of
from pytest_bpfmaps.report.plain_values import sending
from pytest_bpfmaps.vm.remembered import forget_plugins
from pytest_bpfmaps.vm.rpc import Host


def shows_output(config: pytest.Config) -> bool:
    """Whether what tests write is to be seen at once: ``-s``, ``--capture=tee-sys``."""
    return config.getoption("capture") in ("no", "tee-sys")


def show_output(config: pytest.Config) -> None:
    """Has stdout be stderr, and pytest write its own to /dev/null, where execnet has both go."""
    if config.pluginmanager.has_plugin("terminalreporter"):
        config.get_terminal_writer()._file = os.fdopen(os.dup(1), "w", closefd=False)
    os.dup2(2, 1)


def make_events_plain(config: pytest.Config) -> None:
    """Has pytest-xdist's part of this worker send only what can be sent: all else would end the whole run."""
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "WorkerInteractor":
            plugin.sendevent = sending(plugin.sendevent)


class Worker:
    """`orders` are those of `lanes.Lane`."""

    def __init__(self, config: pytest.Config, orders: Mapping[str, Any]) -> None:
        self.kernel: str = orders["kernel"]
        self.host = Host.connect() if self.kernel != HOST else None
        self._orders = orders
        self._root = config.rootpath
        make_events_plain(config)
        if shows_output(config):
            show_output(config)
        if files := orders.get("files"):
            config.args = [str(config.rootpath / file) for file in files]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool | None:
        """A worker without a kernel, which only keeps a place, has nothing to do."""
        forget_plugins()
        return True if self.kernel == "idle" else None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        """Keep the tests of this worker.

        Where the host names them, it is its word that counts: plugins that choose a part of all tests did so
        there, where all are known.
        """
        collected = {item.nodeid: item for item in items}  # --dist=loadgroup will change the ids
        yield
        without = {collected.get(test) for test in self._orders.get("without", ())}
        mine = [item for item in items if kernel_of(item) == self.kernel and item not in without]
        only = self._orders.get("only")
        if only is not None:
            unsure = set(self._orders.get("unsure", ()))
            wanted = [collected[test] for test in only if test in collected]
            more = [item for item in mine if os.path.relpath(item.path, self._root) in unsure]
            mine = list(dict.fromkeys([*wanted, *more]))
        items[:] = mine

    def pytest_collection_finish(self) -> None:
        """Start the CPUs that an emulated guest does not boot with; collection is quicker without them."""
        if self.host is not None:
            for switch in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/online"):
                if switch.read_text().strip() == "0":
                    switch.write_text("1")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Tell the gateway which test runs, so that it notices when one hangs."""
        if self.host is None:
            return (yield)
        self.host.tell_test(item.nodeid)
        try:
            return (yield)
        finally:
            self.host.tell_test(None)
