"""Wraps pyroute2. It is imported when the first interface is made: that takes longer than most tests."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from pytest_bpfmaps.errors import TriggerError, UnsupportedError
from pytest_bpfmaps.libbpf.calls import reason


def require_pyroute2() -> None:
    """Raises `UnsupportedError` where pyroute2 is not installed; does not import it."""
    try:
        found = importlib.util.find_spec("pyroute2")
    except ValueError:  # sys.modules has None in its place
        found = None
    if found is None:
        raise UnsupportedError(
            "cannot make a network for a test",
            why="pyroute2 is not installed",
            fix="pip install 'pytest-bpfmaps[net]'",
        )


@contextlib.contextmanager
def netlink_socket() -> Iterator[Any]:
    """Yields pyroute2's ``IPRoute`` in this thread's namespace.

    Each call makes a new one, in a millisecond. pyroute2 opens another socket for each thread that uses one,
    and that socket belongs to whatever namespace the thread is in.
    """
    require_pyroute2()
    from pyroute2.iproute.linux import IPRoute

    _refuse_running_loop()
    with IPRoute() as ip:
        yield ip


def _refuse_running_loop() -> None:
    """Raises `TriggerError` in a running event loop: pyroute2 runs its own, and a thread runs only one."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise TriggerError(
        "cannot change a network",
        why="an asyncio event loop runs in this thread",
        fix="make the network in a fixture, or: await asyncio.to_thread(left.veth_to, right)",
    )


@contextlib.contextmanager
def refused_as(what: str, on: str) -> Iterator[None]:
    """Raises `TriggerError` where the kernel refuses a netlink request."""
    require_pyroute2()
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as e:
        detail = str(e.args[1]) if len(e.args) > 1 and e.args[1] else reason(e.code)
        raise TriggerError(what, on=on, why=detail, errno=e.code) from e
