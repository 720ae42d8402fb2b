"""Pins: makes names of maps in a bpf file system, and removes them again.

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

from pytest_bpfmaps.errors import ClosedError, MapError, UnsupportedError, remedy
from pytest_bpfmaps.libbpf.bpffs import open_bpffs
from pytest_bpfmaps.maps.info import MapInfo

_SHARED = Path("/sys/fs/bpf")


class Pins:
    """The pins that one fixture makes, and its own folder for pins with a relative path.

    `close` removes every pin that was made here, in any folder, and the folder.
    """

    def __init__(self) -> None:
        self._made: dict[str, tuple[int, int]] = {}
        self._undo = contextlib.ExitStack()
        self._closed = False

    @cached_property
    def root(self) -> Path:
        """A folder of this fixture's own on a bpf file system, made when it is first needed.

        It is a file system of its own (Linux 5.2, CAP_SYS_ADMIN). The kernel removes it when this process
        ends, even if it is killed. If that is not possible, it is a new folder in ``/sys/fs/bpf``. Raises
        `UnsupportedError` if neither is possible.
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
        """Returns the path for a pin; a relative path is below `root`."""
        text = os.fspath(path)
        return text if os.path.isabs(text) else f"{self.root}/{text}"

    def place(self, path: str | os.PathLike[str]) -> str:
        """Returns the path for a new pin, and makes missing folders below `root`."""
        where = self.path(path)
        if where != os.fspath(path):
            os.makedirs(os.path.dirname(where), exist_ok=True)
        return where

    def add(self, path: str) -> None:
        """Records a pin that was just made."""
        with contextlib.suppress(OSError):
            self._made[path] = _identity(path)

    def close(self) -> None:
        """Removes the pins, unless another process replaced them. Safe to call again."""
        self._closed = True
        self.__dict__.pop("root", None)  # another file may get its descriptor's number
        made, self._made = self._made, {}
        for path, identity in reversed(made.items()):
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)
        self._undo.close()

    def _shared(self, reason: MapError) -> Path:
        """Makes a new folder in the shared bpf file system."""
        try:
            folder = tempfile.mkdtemp(prefix="bpfmaps-", dir=_SHARED)
        except OSError as e:
            raise UnsupportedError(
                "cannot make a folder for pins",
                on=f"in {_SHARED}",
                why=f"{e.strerror}; nor {reason.what} {reason.on}: {reason.why}",
                fix=remedy(
                    e.errno,
                    "run as root, or mount a bpf file system that you may write to: "
                    "'mount -t bpf bpf /sys/fs/bpf'",
                ),
                errno=e.errno,
            ) from reason
        self._undo.callback(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def pin_remedy(path: str) -> str:
    """Returns what to do about a pin that was refused."""
    own = "m.pin('x') pins in a folder of the test's own, bpf.pin_root"
    if os.path.lexists(path):
        return f"remove the file of that name first, or use another name; {own}"
    if Path(path).is_relative_to(_SHARED) and not os.path.ismount(_SHARED):
        return f"mount a bpf file system there: 'mount -t bpf bpf {_SHARED}'; {own}"
    return f"use an existing folder on a bpf file system; {own}"


def unpin(path: str, on: str) -> None:
    """Removes a pin. Raises `MapError` if there is none."""
    try:
        os.unlink(path)
    except OSError as e:
        fix = "nothing is pinned there" if e.errno == errno.ENOENT else None
        raise MapError(f"cannot unpin {on}", on=f"at {path}", why=e.strerror, fix=fix, errno=e.errno) from e


def differences(wanted: MapInfo, found: MapInfo) -> str:
    """Returns the attributes in which a pinned map differs from the map of an object; empty if none."""
    names = ("type", "key_size", "value_size", "max_entries", "flags")
    pairs = ((n, getattr(found, n), getattr(wanted, n)) for n in names)
    return ", ".join(
        f"{name} is {_shown(name, there)}, but the object's is {_shown(name, mine)}"
        for name, there, mine in pairs
        if there != mine
    )


def _shown(name: str, value: int) -> str:
    return f"{value:#x}" if name == "flags" else str(value)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
