"""Makes control groups, version 2, for tests."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Self

from pytest_bpfmaps.errors import ClosedError, TriggerError, UnsupportedError, remedy
from pytest_bpfmaps.kernel.mounts import MOUNTINFO, how_to_mount, parse_mounts
from pytest_bpfmaps.kernel.release import timeout_scale
from pytest_bpfmaps.triggers.reaper import reaper
from pytest_bpfmaps.triggers.unique_names import PREFIX, unique_name

_MEMBERSHIP = Path("/proc/self/cgroup")
_KILL_TIME = 2.0  # seconds after which a killed process counts as stuck


class Cgroup:
    """A control group; `Program.attach(cgroup=…)` takes it. The fixture `bpf_cgroup` makes it.

    Its folder is locked while this process lives. So a later run knows which folders a killed run has left.
    Raises `TriggerError` with errno.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._children: list[Cgroup] = []
        self._fd = _make(path)
        reaper.watch_cgroup(path)

    def fileno(self) -> int:
        """Returns its descriptor. Raises `ClosedError` after teardown."""
        if self._fd < 0:
            raise ClosedError("cannot use", on=str(self), why="it is removed already")
        return self._fd

    @property
    def fd(self) -> int:
        """Its descriptor. Raises `ClosedError` after teardown."""
        return self.fileno()

    @property
    def id(self) -> int:
        """What ``bpf_get_current_cgroup_id()`` returns inside: the folder's inode number (Linux 5.5)."""
        return os.fstat(self.fileno()).st_ino

    @property
    def pids(self) -> list[int]:
        """The processes inside, without those of its children."""
        return _pids(self.path)

    def add(self, pid: int) -> None:
        """Moves a process in, with all its threads; 0 is this process."""
        self.fileno()
        _move(pid, self.path)

    @contextlib.contextmanager
    def enter(self) -> Iterator[Self]:
        """Moves this process in with all its threads, and back afterwards. It may be nested."""
        home = own_folder()
        self.add(0)
        try:
            yield self
        finally:
            _move(0, home)

    def child(self, name: str) -> Cgroup:
        """Makes a control group inside this one. It is removed together with this one."""
        made = Cgroup(self.path / name)
        self._children.append(made)
        return made

    def close(self) -> None:
        """Moves this process out, kills every other process inside, and removes the group with its children.

        Safe to call again. Raises `TriggerError` when a process inside does not die within two seconds.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            while self._children:
                self._children.pop().close()
            remove(self.path)
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        return f"cgroup {self.path}"


def new_cgroup() -> Cgroup:
    """Makes a control group with a new name below the group that this process began in.

    Raises `UnsupportedError` where no version 2 hierarchy is mounted. Raises `TriggerError` where this
    process may not change it.
    """
    parent = root()
    _remove_dead(parent)
    return Cgroup(parent / unique_name())


@cache
def root() -> Path:
    """Returns the folder of the control group that this process began in."""
    return own_folder()


def own_folder() -> Path:
    """Returns the folder of the control group that this process is in, or the top one if that is hidden."""
    top, mounted = _mount()
    folder = top / os.path.relpath(_own_path(), mounted)
    return folder if folder.is_relative_to(top) and folder.is_dir() else top


def _own_path() -> str:
    """Returns the path of this process in the version 2 hierarchy, cgroups(7)."""
    for line in _MEMBERSHIP.read_text(errors="surrogateescape").split("\n"):
        if line.startswith("0::"):
            return line.removeprefix("0::").removesuffix(" (deleted)")
    return "/"


@cache
def _mount() -> tuple[Path, str]:
    found = find_mount(MOUNTINFO.read_text(errors="surrogateescape"))
    if found is None:
        raise UnsupportedError(
            "cannot make a cgroup",
            why="no cgroup v2 hierarchy is mounted here, and BPF programs use no other",
            fix=how_to_mount("cgroup2") or "boot a kernel with CONFIG_CGROUPS=y",
            errno=errno.ENOENT,
        )
    return found


def find_mount(mountinfo: str) -> tuple[Path, str] | None:
    """Returns where cgroup2 is mounted, and which part of it, by the text of /proc/self/mountinfo.

    It prefers a mount of the whole hierarchy.
    """
    found = [(mount.part, mount.point) for mount in parse_mounts(mountinfo) if mount.kind == "cgroup2"]
    if not found:
        return None
    part, point = min(found)
    return Path(point), part


def _make(path: Path) -> int:
    """Returns a locked descriptor of a new folder."""
    while True:
        try:
            path.mkdir()
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise TriggerError(
                "cannot make cgroup",
                on=str(path),
                why=str(e),
                fix=_remedy(e.errno),
                errno=e.errno,
            ) from e
        fcntl.flock(fd, fcntl.LOCK_SH)
        if path.exists():  # else another run took it for a leftover before it was locked
            return fd
        os.close(fd)


def _remedy(number: int | None) -> str | None:
    if number == errno.EAGAIN:  # cgroup.max.descendants, or cgroup.max.depth
        return "a cgroup above it may have no more below it: see cgroup.max.descendants, cgroup.max.depth"
    return remedy(number, "run as root, with the cgroup file system writable")


def _move(pid: int, folder: Path) -> None:
    try:
        (folder / "cgroup.procs").write_text(str(pid))
    except OSError as e:
        who = "this process" if pid == 0 else f"process {pid}"
        raise TriggerError(f"cannot move {who}", on=f"to cgroup {folder}", why=str(e), errno=e.errno) from e


def _pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "cgroup.procs").read_text().split()]


def remove(folder: Path) -> None:
    """Empties and removes a control group and the groups below it."""
    for child in [p for p in folder.iterdir() if p.is_dir()]:
        remove(child)
    _empty(folder)
    deadline = time.monotonic() + _KILL_TIME * timeout_scale()
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as e:  # a process that is dying still counts as inside
            if e.errno != errno.EBUSY or time.monotonic() > deadline:
                raise TriggerError(
                    "cannot remove cgroup",
                    on=str(folder),
                    why=f"{e}; processes inside: {_pids(folder) or 'none'}",
                    errno=e.errno,
                ) from e
        time.sleep(0.001)
        with contextlib.suppress(FileNotFoundError):
            _empty(folder)  # a process may have started another one just before its end


def _empty(folder: Path) -> None:
    """Moves this process out, and kills the others."""
    for pid in _pids(folder):
        if pid == os.getpid():
            _move(0, root())
        elif pid > 0:  # 0 is a process of another PID namespace
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _remove_dead(parent: Path) -> None:
    """Removes what killed runs have left: folders of this package that no process has locked."""
    for folder in parent.glob(f"{PREFIX}-*"):
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(fd)
