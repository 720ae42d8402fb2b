"""A pytest-xdist worker for one kernel: it collects its own tests, and tells each step."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

from pytest_bpfmaps.compat.other_plugins import time_limit
from pytest_bpfmaps.compat.pytest_names import redirect_terminal
from pytest_bpfmaps.compat.xdist_names import is_empty, wait_for_orders, worker_interactor
from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import kernel_of
from pytest_bpfmaps.matrix.plain_reports import sending
from pytest_bpfmaps.vm.guest.cpus import start_all_cpus
from pytest_bpfmaps.vm.guest.lookup_caches import forget_plugins
from pytest_bpfmaps.vm.protocol.phases import Phase, WorkerStep
from pytest_bpfmaps.vm.protocol.rpc import Host


def shows_output(config: pytest.Config) -> bool:
    """Returns whether the run shows at once what tests write: ``-s``, ``--capture=tee-sys``."""
    return config.getoption("capture") in ("no", "tee-sys")


def show_output(config: pytest.Config) -> None:
    """Sends stdout to stderr, so that what tests write is seen; execnet has sent stdout to /dev/null.

    pytest's own output stays in /dev/null.
    """
    if config.pluginmanager.has_plugin("terminalreporter"):
        redirect_terminal(config, os.fdopen(os.dup(1), "w", closefd=False))
    os.dup2(2, 1)


class Worker:
    """Runs the tests of one lane; `orders` come from `assignment.Lane.orders`."""

    def __init__(self, config: pytest.Config, orders: Mapping[str, Any]) -> None:
        self.kernel: str = orders["kernel"]
        self.host = Host.connect() if self.kernel != HOST else None
        self._orders = orders
        self._root = config.rootpath
        talks = worker_interactor(config)
        talks.sendevent = sending(talks.sendevent)  # a value that execnet can't carry would end the whole run
        if self.host is not None:
            self._steps = Steps(self.host, talks)
            config.pluginmanager.register(self._steps, "bpfmaps-steps")
            from pytest_bpfmaps.matrix.debugging import Debugging

            wanted = {name: orders.get(name, False) for name in ("pdb", "gdb", "piped")}
            debugging = Debugging(config, self.host, **wanted)
            config.pluginmanager.register(debugging, "bpfmaps-debugging")
        if shows_output(config):
            show_output(config)
        if files := orders.get("files"):
            config.args = [str(config.rootpath / file) for file in files]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool | None:
        """Collects nothing in a worker without a kernel, which only keeps a place."""
        forget_plugins()
        return True if self.kernel == "idle" else None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        """Keeps the tests of this worker.

        Where the host names the tests, these run. Plugins that choose a part of all tests have done so on the
        host, where all tests are known.
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
        """Starts the CPUs that an emulated guest does not boot with; collection is faster without them."""
        if self.host is not None:
            start_all_cpus()


class Steps:
    """Tells the gateway each step of the worker, so that it notices when one hangs.

    `talks` is pytest-xdist's part of the worker.
    """

    def __init__(self, host: Host, talks: Any) -> None:
        self._host = host
        self._worker = os.getpid()
        self._test = ""
        talks.sendevent = self._only_here(talks.sendevent)
        wait_for_orders(talks, self._waiting)

    def tell(self, phase: Phase, at: str = "", more: float = 0.0) -> None:
        """Tells that the worker is in `phase` from now on."""
        self._end_a_fork()
        self._host.tell(WorkerStep(phase, at, more))

    def _only_here(self, send: Callable[..., None]) -> Callable[..., None]:
        def sendevent(name: str, **facts: Any) -> None:
            self._end_a_fork()
            send(name, **facts)

        return sendevent

    def _end_a_fork(self) -> None:
        """Ends this process if a test forked it: only one process may report."""
        if os.getpid() != self._worker:
            self._host.say_forked(self._test)
            os._exit(1)

    def _waiting(self, queue: Any) -> Callable[[], Any]:
        """Returns a `queue.get` that tells when it has to wait for the other side."""
        get = queue.get

        def get_next() -> Any:
            if not is_empty(queue):
                return get()
            self.tell(Phase.ORDERS)
            order = get()
            self.tell(Phase.BETWEEN)
            return order

        return get_next

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Tells that the collection begins."""
        self.tell(Phase.COLLECTION)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        """Tells that a file is collected, which imports it."""
        if isinstance(collector, pytest.File):
            self.tell(Phase.COLLECTION, collector.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Tells that a test runs, and that it may have a time limit of its own."""
        self._test = item.nodeid
        self.tell(Phase.TEST, item.nodeid, time_limit(item))
        try:
            return (yield)
        finally:
            self.tell(Phase.BETWEEN)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Tells that the session ends. Nobody waits for what comes after that."""
        self.tell(Phase.END)
        try:
            return (yield)
        finally:
            self.tell(Phase.ORDERS)
