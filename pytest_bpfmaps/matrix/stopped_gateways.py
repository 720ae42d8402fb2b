"""Ends gateways that a signal or a debugger has stopped. They count no time; the run would wait for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_bpfmaps.vm.gateway.journal import JournalEntry, write
from pytest_bpfmaps.vm.protocol.phases import Countdown


class StoppedGateways:
    """Ends a gateway that has been stopped for `seconds`, and notes that in the `journal`, a path.

    The time in which this process itself was stopped does not count: Ctrl-Z stops all of them at once.
    """

    def __init__(self, journal: str, seconds: float) -> None:
        self._journal, self._seconds = journal, seconds
        self._watched: dict[str, tuple[Any, str, Countdown | None]] = {}  # by the name of the worker
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def add(self, worker: str, process: Any, kernel: str) -> None:
        """Watches the gateway of a worker, a `subprocess.Popen`."""
        self._watched[worker] = (process, kernel, None)
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
            for worker, (process, kernel, countdown) in list(self._watched.items()):
                if process.poll() is not None or not _is_stopped(process.pid):
                    counting = None
                elif countdown is None:
                    counting = Countdown(lambda: 0.0, time.monotonic)
                    counting.start(self._seconds)
                else:
                    counting = countdown
                    if counting.is_over():
                        self._end(worker, process, kernel)
                        continue
                if worker in self._watched:
                    self._watched[worker] = (process, kernel, counting)

    def _end(self, worker: str, process: Any, kernel: str) -> None:
        self.forget(worker)
        text = (
            f"VmLostError: guest died: kernel {kernel}: the process that runs it, {process.pid}, was stopped "
            f"by a signal or a debugger for {self._seconds:g} s, and was ended\n  -> find out what stops it"
        )
        with suppress(OSError):
            write(self._journal, JournalEntry(worker, "lost", text=text))
        with suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, LookupError):  # it has ended
        return False
