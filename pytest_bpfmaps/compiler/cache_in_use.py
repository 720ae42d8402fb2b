"""Records which parts of the object cache are in use, so that no other process removes them.

Each process that uses the cache has a file in ``runs``. It holds a lock on this file until it ends, in
whatever way. The file's modification time is the time when the process began to use the cache. An entry that
the process uses gets a time that is not earlier. So every entry with a time after the start of the oldest
running process has to stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

RUNS = "runs"


def use(root: Path, *paths: Path) -> None:
    """Keeps `paths` in the cache until this process ends. The caller holds `steady` meanwhile."""
    with contextlib.suppress(OSError):  # the cache may belong to another user, whose runs keep it
        began = _begin(root, os.getpid())
        for path in paths:
            if path.stat().st_mtime < began:
                os.utime(path)


@cache
def _begin(root: Path, process: int) -> float:
    """Returns when this process began to use the cache; the lock is held until the process ends."""
    (root / RUNS).mkdir(parents=True, exist_ok=True)
    while True:
        handle, name = tempfile.mkstemp(dir=root / RUNS)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        os.write(handle, b"%d\n" % process)  # only for people who look at the file
        with contextlib.suppress(FileNotFoundError):  # another process removed it before it was locked
            return os.stat(name).st_mtime
        os.close(handle)


def oldest_run(root: Path) -> float:
    """Returns when the oldest running process began to use the cache; the current time if there is none."""
    began = time.time()
    for run in (root / RUNS).glob("*"):
        with contextlib.suppress(OSError):  # it no longer exists, or is no file
            if _goes_on(run):
                began = min(began, run.stat().st_mtime)
            else:
                run.unlink()
    return began


def _goes_on(run: Path) -> bool:
    handle = os.open(run, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:  # the lock is held; or the file system has no locks, so the process may still run
        return True
    finally:
        os.close(handle)


@contextlib.contextmanager
def steady(root: Path, *, to_remove: bool = False) -> Iterator[None]:
    """Stops removals by other processes until the end of the ``with`` block.

    With `to_remove` it stops new uses by other processes instead.
    """
    try:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # there is no cache yet
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX if to_remove else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)
