"""Build a folder out of sight, then move it to its name in one step.

A staging folder lies in ``.new`` beside its target, so on the same file system. Its maker holds a `flock(2)`
on the folder itself for as long as it lives; the kernel drops that lock even on ``kill -9``, so a folder that
can be locked is a leftover, whatever process ids have come round again.
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
    """The lock, between processes, of one name below `root`. A name that starts with a dot is no kernel's."""
    from filelock import FileLock

    folder = root / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock")


def locked_names(root: Path) -> set[str]:
    """The names below `root` that ever had a lock, so that may be on their way from one folder to another."""
    with suppress(OSError):
        locks = os.listdir(root / ".locks")
        return {lock.removesuffix(".lock") for lock in locks if not lock.startswith(".")}
    return set()


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A fresh folder below `root`, gone at the end together with what is still in it."""
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
            if folder.exists():  # else another process took it for a leftover, before the lock
                return folder, lock
            os.close(lock)


def remove_abandoned(root: Path) -> list[Path]:
    """Delete the staging folders of processes that are gone; return them."""
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
    """Says that this process uses a folder, so that no other removes it, until it is closed.

    The kernel drops that when the process ends, however it ends. A folder that is not there is in no use.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = -1
        with suppress(OSError):  # nor is one on a file system without locks
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Safe to call again."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether no process uses a file or folder; as long as this lasts, none begins to. True where none is."""
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
    """Moves what is called `target` below `trash`, if it is there; `what` says what for.

    Hold the name's lock. Raises VmError when a process uses it.
    """
    with unused(target) as free:
        if not free:
            pid = holder(target)
            raise VmError(
                f"cannot {what} kernel",
                on=repr(target.name),
                why="a run uses it" + (f": process {pid}" if pid else ""),
                fix="wait until that has ended, or end it",
            )
        with suppress(FileNotFoundError):
            target.rename(trash / target.name)


def replace(folder: Path, target: Path, trash: Path) -> None:
    """Give `folder` the name `target`; what stood there goes below `trash`. Hold the name's lock.

    Raises VmError when a process uses what stood there.
    """
    move_away(target, trash, "replace")
    place_folder(folder, target)
