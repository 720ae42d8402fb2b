"""Finds the descriptor of a file, a socket, a path or a process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.libbpf.calls import reason


def descriptor_of(thing: Any) -> int | None:
    """Returns an object's descriptor: the int itself, ``fileno()`` or ``.fd``; None if it has none."""
    if isinstance(thing, bool):
        return None
    if isinstance(thing, int):
        return int(thing)
    fileno = getattr(thing, "fileno", None)
    number = fileno() if callable(fileno) else getattr(thing, "fd", None)
    return number if isinstance(number, int) else None


def is_path(thing: Any) -> bool:
    """Returns whether the object is a path."""
    return isinstance(thing, str | bytes | os.PathLike)


@contextmanager
def opened(path: Any, flags: int, what: str) -> Iterator[int]:
    """Opens `path`, and closes it at the end. Raises `MapError` with errno, beginning with `what`."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except OSError as e:
        raise MapError(what, on=f"at {path}", why=reason(e.errno or 0), errno=e.errno) from e
    with closing(fd):
        yield fd


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Yields the descriptor, and closes it at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def describe(fd: int) -> str:
    """Returns the kind of a descriptor of this process, for a message: ``fd 5 is socket:[1234]``."""
    try:
        return f"fd {fd} is {os.readlink(f'/proc/self/fd/{fd}').removeprefix('anon_inode:')}"
    except OSError as e:
        return f"fd {fd} is not open" if e.errno == errno.ENOENT else f"fd {fd} is unknown"
