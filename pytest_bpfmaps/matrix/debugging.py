"""Lets a person debug a test in a guest: ``breakpoint()``, ``--trace``, ``--pdb``, and input with ``-s``.

The terminal of pytest is the host's. The gateway lends it to the guest while the debugger waits for a person.
That time does not count against the time limits of the test.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Generator
from typing import Any

import pytest

from pytest_bpfmaps.compat.pytest_names import (
    before_debugger,
    debug_failure,
    is_capturing,
    suspend_capture,
)
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.guest import init
from pytest_bpfmaps.vm.guest.own_pty import OwnPty
from pytest_bpfmaps.vm.protocol.rpc import Host

_MOST_SHOWN = 300  # characters of a failure


class Debugging:
    """Gives the worker of a guest the host's terminal while it is needed.

    `pdb`: ``--pdb`` is on. `gdb`: ``--bpf-gdb`` is on. `piped`: pytest's input is no terminal.
    """

    def __init__(
        self, config: pytest.Config, host: Host, *, pdb: bool, gdb: bool, piped: bool = False
    ) -> None:
        self._config, self._host, self._pdb, self._gdb = config, host, pdb, gdb
        self._pty: OwnPty | None = None
        self._interrupt: Any = None
        self.has_terminal = False
        before_debugger(config, self.begin)
        if config.getoption("capture") == "no":
            sys.stdin = Asking(self, host if piped else None)

    def begin(self) -> None:
        """Takes the terminal. Raises `VmError` where the host can't lend it."""
        if self.has_terminal:
            return
        size = json.loads(self._host.call("terminal", "open"))
        suspend_capture(self._config)
        if self._pty is None:
            self._pty = OwnPty(init.open_port(init.TERMINAL))
        self._pty.begin(size)
        self._interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.has_terminal = True

    def end(self) -> None:
        """Gives the terminal back. Safe to call again."""
        if self.has_terminal and self._pty is not None:
            self.has_terminal = False
            signal.signal(signal.SIGINT, self._interrupt)
            self._pty.end(restore=not is_capturing(self._config))
            self._host.call("terminal", "close")

    @pytest.hookimpl(trylast=True)
    def pytest_leave_pdb(self) -> None:
        """Gives the terminal back when the test goes on."""
        self.end()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        """Gives the terminal back after the test: pdb can end without a call of `pytest_leave_pdb`."""
        try:
            return (yield)
        finally:
            self.end()

    def pytest_exception_interact(self, node: pytest.Item, call: Any, report: Any) -> None:
        """Lets a person debug a failure, with ``--bpf-gdb`` and ``--pdb``."""
        if self._gdb and isinstance(node, pytest.Item):
            self._attach_gdb(node, call.excinfo)
        if self._pdb:
            self.begin()
            debug_failure(node, call.excinfo, report)

    def _attach_gdb(self, item: pytest.Item, failure: pytest.ExceptionInfo[BaseException]) -> None:
        """Says how to attach gdb. Waits for a line, except where ``--pdb`` waits afterwards."""
        from pytest_bpfmaps.vm.guest.kernel_addresses import addresses

        waits = not self._pdb
        try:
            advice = self._host.call("gdb", json.dumps(addresses()))
        except VmError as error:  # the test's own failure must be reported in any case
            advice, waits = str(error), False
        self.begin()
        why = failure.exconly().partition("\n")[0]
        print(f"\nbpfmaps: {item.nodeid} failed: {why:.{_MOST_SHOWN}}")
        for line in advice.splitlines():
            print(f"bpfmaps: {line}")
        if waits:
            print("bpfmaps: the test waits; press Enter to go on", end="", flush=True)
            sys.stdin.readline()
        if not self._pdb:
            self.end()


class Asking:
    """Standard input with ``-s``: it takes the terminal for each line, or reads pytest's input by `pipe`."""

    encoding, errors = "utf-8", "strict"

    def __init__(self, debugging: Debugging, pipe: Host | None) -> None:
        self._debugging, self._pipe = debugging, pipe
        self._own = sys.stdin

    def readline(self, size: int = -1) -> str:
        """Returns the next line; nothing at the end of the input."""
        had = self._debugging.has_terminal
        if self._pipe is not None and not had:
            return self._pipe.call("line", "")
        self._debugging.begin()
        try:
            return self._own.readline(size)
        finally:
            if not had:
                self._debugging.end()

    def __iter__(self) -> Asking:
        return self

    def __next__(self) -> str:
        if line := self.readline():
            return line
        raise StopIteration

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)
