"""Notes which parts of the object cache are in use, so that no other process removes them.

Each process that takes something from the cache has a file in ``runs``, which it holds a lock on until it
ends, however it ends; the file's time is when that began. What the process uses gets a time that is not
before that one. So what was used since the oldest run began that still goes on has to stay.
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
    """Has what is at `paths` in the cache stay until this process ends. Hold `steady` until it was found."""
    with contextlib.suppress(OSError):  # the cache may be another user's, who takes care of it
        began = _begin(root, os.getpid())
        for path in paths:
            if path.stat().st_mtime < began:
                os.utime(path)


@cache
def _begin(root: Path, process: int) -> float:
    """When this process began to use the cache; the lock is held until it ends."""
    (root / RUNS).mkdir(parents=True, exist_ok=True)
    while True:
        handle, name = tempfile.mkstemp(dir=root / RUNS)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        os.write(handle, b"%d\n" % process)  # nobody but people reads it
        with contextlib.suppress(FileNotFoundError):  # a collector took it for a leftover, before the lock
            return os.stat(name).st_mtime
        os.close(handle)


def oldest_run(root: Path) -> float:
    """When the oldest run that goes on began to use the cache; now, where none does."""
    began = time.time()
    for run in (root / RUNS).glob("*"):
        with contextlib.suppress(OSError):  # it is gone, or no file
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
    except OSError:  # held; or a file system without locks, where nothing tells
        return True
    finally:
        os.close(handle)


@contextlib.contextmanager
def steady(root: Path, *, to_remove: bool = False) -> Iterator[None]:
    """Meanwhile no collector removes anything; or with `to_remove`, nobody takes anything into use."""
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
