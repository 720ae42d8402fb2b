"""Pins: names of maps in a bpf file system, and what takes them away again.

Source: ``Documentation/bpf`` of the kernel; ``LIBBPF_PIN_BY_NAME`` in libbpf.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from functools import cached_property
from pathlib import Path

from pytest_bpfmaps.errors import ClosedError, MapError, UnsupportedError
from pytest_bpfmaps.libbpf.bpffs import open_bpffs
from pytest_bpfmaps.maps.info import MapInfo

_SHARED = Path("/sys/fs/bpf")


class Pins:
    """The pins that one fixture makes, and the folder for those that name no other.

    `close` removes every pin that was made here, wherever it is, and the folder.
    """

    def __init__(self) -> None:
        self._made: dict[str, tuple[int, int]] = {}
        self._undo = contextlib.ExitStack()
        self._closed = False

    @cached_property
    def root(self) -> Path:
        """A folder of this fixture's own on a bpf file system, made when it is first asked for.

        It is a file system of its own (Linux 5.2, CAP_SYS_ADMIN), which vanishes with this process however
        that ends; else a new folder in ``/sys/fs/bpf``. Raises `UnsupportedError` when neither can be had.
        """
        if self._closed:
            raise ClosedError("cannot pin", on="in the folder of a test", why="the test is over")
        try:
            fd = open_bpffs()
        except MapError as e:
            return self._shared(e)
        self._undo.callback(os.close, fd)
        return Path(f"/proc/{os.getpid()}/fd/{fd}")

    def path(self, path: str | os.PathLike[str]) -> str:
        """The path to pin at; a relative one is below `root`."""
        text = os.fspath(path)
        return text if os.path.isabs(text) else f"{self.root}/{text}"

    def place(self, path: str | os.PathLike[str]) -> str:
        """As `path`, for a new pin: the folders on the way are made when they are below `root`."""
        where = self.path(path)
        if where != os.fspath(path):
            os.makedirs(os.path.dirname(where), exist_ok=True)
        return where

    def add(self, path: str) -> None:
        """Remembers a pin that was just made."""
        with contextlib.suppress(OSError):
            self._made[path] = _identity(path)

    def close(self) -> None:
        """Removes the pins, unless somebody put another in the place. Safe to call again."""
        self._closed = True
        made, self._made = self._made, {}
        for path, identity in reversed(made.items()):
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)
        self._undo.close()

    def _shared(self, reason: MapError) -> Path:
        """A new folder in the file system that all share."""
        try:
            folder = tempfile.mkdtemp(prefix="bpfmaps-", dir=_SHARED)
        except OSError as e:
            raise UnsupportedError(
                "cannot have a folder for pins",
                on=f"in {_SHARED}",
                why=f"{e.strerror}; nor {reason.what} {reason.on}: {reason.why}",
                fix="run as root, or mount one that you may write: 'mount -t bpf bpf /sys/fs/bpf'",
                errno=e.errno,
            ) from reason
        self._undo.callback(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def pin_remedy(path: str) -> str:
    """What to do about a pin that was refused."""
    own = "m.pin('x') pins in a folder of the test's own, bpf.pin_root"
    if os.path.lexists(path):
        return f"the name is taken: remove it first, or take another; {own}"
    if Path(path).is_relative_to(_SHARED) and not os.path.ismount(_SHARED):
        return f"no bpf file system is mounted there: 'mount -t bpf bpf {_SHARED}'; {own}"
    return f"its folder must be there and on a bpf file system; {own}"


def unpin(path: str, on: str) -> None:
    """Removes a pin. Raises `MapError` when there is none."""
    try:
        os.unlink(path)
    except OSError as e:
        fix = "nothing is pinned there" if e.errno == errno.ENOENT else None
        raise MapError(f"cannot unpin {on}", on=f"at {path}", why=e.strerror, fix=fix, errno=e.errno) from e


def differences(wanted: MapInfo, found: MapInfo) -> str:
    """What keeps libbpf from taking a pinned map for one that an object defines; empty when nothing does."""
    names = ("type", "key_size", "value_size", "max_entries", "flags")
    pairs = ((n, getattr(found, n), getattr(wanted, n)) for n in names)
    return ", ".join(
        f"{name} is {_shown(name, there)}, the object's is {_shown(name, mine)}"
        for name, there, mine in pairs
        if there != mine
    )


def _shown(name: str, value: int) -> str:
    return f"{value:#x}" if name == "flags" else str(value)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
