"""Runs commands so that no process of them is left, however this process ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

GRACE = 10.0
"""How long processes have to end by themselves, in seconds."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def guarded(work: Callable[[], int]) -> int:
    """Does `work` in a process of its own, and returns its exit status.

    The first signal that ends this process, SIGKILL too, ends the work by an exception, so every ``finally``
    runs. Later signals change nothing.
    """
    worker = os.fork()
    if worker == 0:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # so that end_descendants finds what commands leave behind
        os.setpgid(0, 0)  # so that Ctrl-C reaches the work once, from the other process
        stop_on_signals()
        sys.exit(work())
    for number in _ENDING:
        signal.signal(number, lambda number, frame: _signal(worker, number))
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    return status if status >= 0 else 128 - status


def stop_on_signals() -> None:
    """Has the next signal that ends processes raise SystemExit."""

    def stop(number: int, frame: object) -> None:
        ignore_signals()
        raise SystemExit(128 + number)

    for number in _ENDING:
        signal.signal(number, stop)


def ignore_signals() -> None:
    """Ignores signals from now on, so that nothing interrupts the teardown."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def run(command: list[str], log: Path, timeout: float, echo: bool, environment: Mapping[str, str]) -> int:
    """Runs `command` with its output in the file `log`, and with `echo` also on stdout. Returns its status.

    After `timeout` seconds it is ended, and the status is 124, as that of timeout(1).
    """
    try:
        with log.open("wb") as file, log.open("rb") as shown:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509, no other thread runs here
            )
            return _wait(process, timeout, (lambda: _show(shown.read())) if echo else None)
    finally:  # also after a signal that came before Popen returned
        end_descendants()


def end_descendants() -> None:
    """Ends every process below this one: by SIGTERM, and by SIGKILL after `GRACE` seconds."""
    limit = time.monotonic() + GRACE
    asked: set[int] = set()
    while pids := descendants(os.getpid()):
        late = time.monotonic() > limit
        for pid in pids:
            if late or pid not in asked:
                _signal(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= pids
        time.sleep(0.05)
        _ended()


def descendants(ancestor: int) -> set[int]:
    """Returns the ids of all processes that `ancestor` started, directly or indirectly, without zombies."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] not in "ZX":
                parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    todo = [ancestor]
    while todo:
        parent = todo.pop()
        new = [pid for pid, its in parents.items() if its == parent and pid not in found]
        found.update(new)
        todo += new
    return found


def _wait(process: subprocess.Popen[bytes], timeout: float, show: Callable[[], None] | None) -> int:
    """Waits for `process`, and meanwhile reaps orphans that ended, as a machine's first process does."""
    limit = time.monotonic() + timeout
    status = None
    while status is None and time.monotonic() < limit:
        status = _ended().get(process.pid)
        if show is not None:
            show()
        if status is None:
            time.sleep(0.05)
    process.returncode = 124 if status is None else status
    return process.returncode


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _ended() -> dict[int, int]:
    """Reaps children that have ended. Returns their exit statuses."""
    found: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    return found
