"""The private names of pytest-xdist and execnet that are used."""

from __future__ import annotations

import builtins
import inspect
import subprocess
from collections.abc import Callable, Iterable, Mapping
from types import CodeType
from typing import Any

import pytest


def worker_interactor(config: pytest.Config) -> Any:
    """Returns pytest-xdist's part of this worker. It talks to the process that distributes the tests."""
    plugins = config.pluginmanager.get_plugins()
    return next(plugin for plugin in plugins if type(plugin).__name__ == "WorkerInteractor")


def asked_workers(config: pytest.Config) -> list[str]:
    """Returns the specifications of workers that the command line asks for, one for each worker."""
    from xdist.workermanage import parse_tx_spec_config

    specs: list[str] = parse_tx_spec_config(config) if config.option.tx else []
    return specs


def is_end(event: object) -> bool:
    """Returns whether a worker's channel was closed, which takes the place of what the worker sends."""
    from xdist.workermanage import Marker

    return event is Marker.END


class Distribution:
    """A distributed session of pytest-xdist, which we begin by hand.

    `known` are the texts of failures and skips of the collection that are reported already.
    """

    def __init__(self, config: pytest.Config, known: Iterable[object]) -> None:
        from xdist.dsession import DSession

        self._session = DSession(config)
        self._session._failed_collection_errors.update(dict.fromkeys(known, True))
        self._session.worker_bpfmaps_call = lambda function: function()
        config.pluginmanager.register(self._session, "dsession")
        _say_nothing_of_workers(config, self._session)

    def begin(self, session: pytest.Session) -> None:
        """Starts the workers."""
        self._session.pytest_sessionstart(session)

    def in_main_thread(self, function: Callable[[], None]) -> None:
        """Makes the thread of the session call `function`, between two messages from workers."""
        self._session.queue.put(("bpfmaps_call", {"function": function}))

    @property
    def is_ending(self) -> bool:
        """Whether no more tests are to be started: by ``-x``, too many crashed workers, or the end."""
        return bool(self._session.shuttingdown or self._session.shouldstop)

    def add_worker(self, spec: str) -> None:
        """Adds a worker in the middle of the session, as pytest-xdist replaces one that crashed."""
        import execnet

        node = self._session.nodemanager.setup_node(execnet.XSpec(spec), self._session.queue.put)
        self._session._active_nodes.add(node)


def _say_nothing_of_workers(config: pytest.Config, session: Any) -> None:
    """Keeps pytest-xdist from telling how many workers are created.

    It still tells of one that has died, but not of a guest: a report says why that ended.
    """
    reporter = config.pluginmanager.getplugin("terminaldistreporter")
    for name in ("setstatus", "ensure_show_status", "rewrite"):
        if hasattr(reporter, name):
            setattr(reporter, name, lambda *_, **__: None)
    for owner, name in ((reporter, "write_line"), (session, "report_line")):
        if say := getattr(owner, name, None):
            setattr(owner, name, _without_guests(say, session))


def _without_guests(say: Callable[..., None], session: Any) -> Callable[..., None]:
    def say_of_others(text: str, *more: Any, **how: Any) -> None:
        ids = [node.gateway.id for node in session._active_nodes if node.gateway.spec.lane]
        if not any(f"[{one}] node down" in text or text.endswith(f"crashed worker {one}") for one in ids):
            say(text, *more, **how)

    return say_of_others


def tell_facts(gateway: Any, facts: Mapping[str, object]) -> None:
    """Tells execnet facts that it would otherwise request from the other side: its executable, version, …"""
    from execnet.gateway import RInfo

    gateway._cache_rinfo = RInfo(dict(facts))


def process_of(gateway: Any) -> subprocess.Popen[bytes]:
    """Returns the process behind a gateway."""
    process: subprocess.Popen[bytes] = gateway._io.popen
    return process


def wait_for_end(gateway: Any, seconds: float) -> None:
    """Waits until the process behind a gateway has ended, and kills it after `seconds`."""
    gateway.join(seconds)
    if gateway.hasreceiver():
        gateway._io.kill()
    gateway._io.wait()


def remember_worker_code() -> None:
    """Makes execnet use the bytecode that Python has of pytest-xdist's worker module.

    execnet sends the module's source to each worker, which would compile it again.
    """
    import xdist.remote
    from execnet import gateway_base

    known = (inspect.getsource(xdist.remote) + "\n", inspect.getsourcefile(xdist.remote), "exec")
    code: CodeType = vars(xdist.remote)["__loader__"].get_code("xdist.remote")

    def compile_or_remember(source: Any, filename: Any, mode: str, *more: Any, **options: Any) -> CodeType:
        if (source, filename, mode) == known and not more and not options:
            return code
        made: CodeType = builtins.compile(source, filename, mode, *more, **options)
        return made

    vars(gateway_base)["compile"] = compile_or_remember  # a module's own names come before the builtins


def wait_for_orders(interactor: Any, waiting: Any) -> None:
    """Makes a worker's interactor get its orders by `waiting(queue)`, in place of ``queue.get``."""
    interactor.torun.get = waiting(interactor.torun)


def is_empty(queue: Any) -> bool:
    """Returns whether a worker's queue of orders is empty."""
    with queue.lock() as items:
        return not items
