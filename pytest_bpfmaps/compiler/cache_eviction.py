"""Removes old objects from the cache, at most once a day."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.compiler.cache_in_use import RUNS, oldest_run, steady

_SERVICE = ("manifests", "locks", "code", "vmlinux", "btf", "clang", "tmp")
_DAY = 86400
EVERY = _DAY
MAX_AGE = 30 * _DAY
"""An entry is removed when no process has used it for so many seconds."""
MAX_BYTES = 1 << 30
"""Above this size the least recently used entries are removed, until three quarters of it are left."""
_IN_USE = 3600  # seconds; a program such as a debugger may still use the path of a run that has ended
_LEAST_SHARE = 0.75


@dataclass(frozen=True)
class Item:
    """A file or folder of the cache that can be removed as a whole."""

    path: Path
    used: float  # seconds since the epoch
    size: int  # bytes


def collect_sometimes(root: Path) -> None:
    """Removes old objects if the last time is more than a day ago; otherwise it costs one `stat`."""
    stamp = root / "collected"
    try:
        if time.time() - stamp.stat().st_mtime < EVERY:
            return
    except FileNotFoundError:
        pass
    stamp.touch()
    evict(root)


def evict(root: Path, *, max_age: float = MAX_AGE, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Removes what was not used for `max_age` seconds, then the oldest while the rest exceeds `max_bytes`.

    It leaves what was used in the last hour, or since the start of the oldest run that still goes on. Returns
    the removed paths. Other processes may compile and remove at the same time.
    """
    now = time.time()
    spared = min(now - _IN_USE, oldest_run(root))
    items = sorted(_items(root), key=lambda item: item.used)
    total = sum(item.size for item in items)
    allowed = max_bytes if total <= max_bytes else max_bytes * _LEAST_SHARE
    removed = []
    for item in items:
        too_old = now - item.used > max_age
        if item.used >= spared or not (too_old or total > allowed):
            continue
        with steady(root, to_remove=True):
            if _is_used_since(item.path, spared):
                continue
            _remove(item.path)
        total -= item.size
        removed.append(item.path)
    return removed


def _items(root: Path) -> Iterator[Item]:
    """Yields the folders of objects, and the contents of the folders with other files of the cache."""
    for folder in root.iterdir():
        if folder.name == RUNS:
            continue
        for path in folder.iterdir() if folder.name in _SERVICE else [folder]:
            if path.is_dir() or folder.name in _SERVICE:
                with contextlib.suppress(FileNotFoundError):
                    yield _item(path)


def _item(path: Path) -> Item:
    files = [path, *path.iterdir()] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return Item(path, max(state.st_mtime for state in states), sum(state.st_size for state in states))


def _is_used_since(path: Path, when: float) -> bool:
    """Returns whether a process has used or removed the path since `when`."""
    try:
        return _item(path).used >= when
    except FileNotFoundError:
        return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
