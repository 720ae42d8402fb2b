"""Ends gateways that a signal or a debugger has stopped: they count no time, so a run would wait for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pytest_bpfmaps.vm.gateway.journal import JournalEntry, write
from pytest_bpfmaps.vm.machine.child_process import is_stopped
from pytest_bpfmaps.vm.protocol.phases import Countdown


@dataclass
class _Gateway:
    process: Any
    pid: int
    kernel: str
    countdown: Countdown | None = None  # counts while it is stopped


class StoppedGateways:
    """Ends a gateway that has been stopped for `seconds`, and notes that in the `journal`, a path.

    The time in which this process itself was stopped does not count: Ctrl-Z stops all of them at once.
    """

    def __init__(self, journal: str, seconds: float) -> None:
        self._journal, self._seconds = journal, seconds
        self._watched: dict[str, _Gateway] = {}  # by the name of the worker
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def add(self, worker: str, process: Any, kernel: str, itself: int | None = None) -> None:
        """Watches the gateway of a worker, a `subprocess.Popen`.

        `itself` is the gateway, where `process` only connects it: a guest that waited has started earlier.
        """
        self._watched[worker] = _Gateway(process, process.pid if itself is None else itself, kernel)
        if not self._thread.is_alive():
            self._thread.start()

    def forget(self, worker: str) -> None:
        """Stops watching a worker's gateway, which has ended or is about to end."""
        self._watched.pop(worker, None)

    def close(self) -> None:
        """Stops watching."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(Countdown.LOOK):
            for worker, gateway in list(self._watched.items()):
                if gateway.process.poll() is not None or not is_stopped(gateway.pid):
                    gateway.countdown = None
                elif gateway.countdown is None:
                    gateway.countdown = Countdown(lambda: 0.0, time.monotonic)
                    gateway.countdown.start(self._seconds)
                elif gateway.countdown.is_over():
                    self._end(worker, gateway)

    def _end(self, worker: str, gateway: _Gateway) -> None:
        self.forget(worker)
        text = (
            f"VmLostError: guest died: kernel {gateway.kernel}: the process that runs it, {gateway.pid}, was "
            f"stopped by a signal or a debugger for {self._seconds:g} s, and was ended\n"
            "  -> find out what stops it"
        )
        with suppress(OSError):
            write(self._journal, JournalEntry(worker, "lost", text=text))
        with suppress(OSError):
            os.kill(gateway.pid, signal.SIGKILL)
