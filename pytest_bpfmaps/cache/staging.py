"""Builds a folder out of sight, then moves it to its name in one step.

A staging folder lies in ``.new`` beside its target, so both are on one file system. The process that makes it
holds a `flock(2)` on the folder itself as long as it lives. The kernel drops that lock even on ``kill -9``.
So a folder that can be locked is a leftover. Process ids would not tell that, because they are used again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pytest_bpfmaps.cache.locks import holder
from pytest_bpfmaps.cache.stored_files import place_folder
from pytest_bpfmaps.errors import VmError

if TYPE_CHECKING:
    from filelock import FileLock


def name_lock(root: Path, name: str) -> FileLock:
    """Returns the lock, between processes, of one name below `root`. No kernel's name starts with a dot."""
    from filelock import FileLock

    folder = root / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock")


def locked_names(root: Path) -> set[str]:
    """Returns the names below `root` that ever had a lock. They may be on their way to another folder."""
    with suppress(OSError):
        locks = os.listdir(root / ".locks")
        return {lock.removesuffix(".lock") for lock in locks if not lock.startswith(".")}
    return set()


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """Makes a fresh folder below `root`, and removes it at the end with everything that is still in it."""
    new = root / ".new"
    new.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root)
    folder, lock = _locked_folder(new)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():  # another process may have removed it as a leftover before it was locked
                return folder, lock
            os.close(lock)


def remove_abandoned(root: Path) -> list[Path]:
    """Deletes the staging folders of processes that are gone, and returns them."""
    gone = []
    with suppress(FileNotFoundError):
        for folder in (root / ".new").iterdir():
            with suppress(OSError):
                if _delete_if_unused(folder):
                    gone.append(folder)
    return gone


def _delete_if_unused(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


class InUse:
    """Marks a folder as used by this process until it is closed, so that no other process removes it.

    The kernel removes the mark when the process ends, however it ends. A missing folder can't be marked.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = -1
        with suppress(OSError):  # it is missing, or its file system has no locks
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the mark. Safe to call again."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Gives True if no process uses the file or folder, or if there is none.

    Until the end of the ``with`` block, no process can mark it as used.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    except OSError:  # a file system without locks
        free = True
    try:
        yield free
    finally:
        os.close(handle)


def move_away(target: Path, trash: Path, what: str) -> None:
    """Moves `target` into `trash`, if it is there; `what` is how the message begins.

    The caller holds the lock of the name. Raises VmError when a process uses `target`.
    """
    with unused(target) as free:
        if not free:
            pid = holder(target)
            raise VmError(
                what,
                on=repr(target.name),
                why="a run uses it" + (f": process {pid}" if pid else ""),
                fix="wait until that has ended, or end it",
            )
        with suppress(FileNotFoundError):
            target.rename(trash / target.name)


def replace(folder: Path, target: Path, trash: Path) -> None:
    """Gives `folder` the name `target`, and moves what had that name into `trash`.

    The caller holds the lock of the name. Raises VmError when a process uses what had it.
    """
    move_away(target, trash, "cannot replace kernel")
    place_folder(folder, target)
