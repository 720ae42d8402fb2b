"""Saved states of guests on disk: what each was made of, which are current, which can go.

A state is a folder below `folder()`, ``KERNEL-KEY``: ``memory`` (as large as the guest's, with holes where it
is zero), ``devices`` (all else, as QEMU writes it) and ``manifest.json``. It appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache import staging
from pytest_bpfmaps.cache.sparse_files import digest
from pytest_bpfmaps.cache.stored_files import write
from pytest_bpfmaps.errors import VmError

PARTS = ("memory", "devices")
UNUSED_SECONDS = 30 * 86400.0  # after which a state that is still current is collected too


def folder() -> Path:
    """Where states are kept."""
    return paths.cache_dir() / "warm"


@dataclass(frozen=True)
class SavedState:
    """A saved state."""

    path: Path

    def part(self, name: str) -> Path:
        """One of `PARTS`."""
        return self.path / name

    @property
    def memory(self) -> Path:
        """The guest's memory."""
        return self.part("memory")

    @property
    def devices(self) -> Path:
        """What else the machine consists of."""
        return self.part("devices")

    def facts(self) -> dict[str, Any]:
        """``kernel``, ``release``, ``files``, ``seconds``, when it was made. Raises OSError, ValueError."""
        facts: dict[str, Any] = json.loads((self.path / "manifest.json").read_text())
        return facts

    def is_current(self) -> bool:
        """Whether everything that it was made of is as it was."""
        try:
            files = self.facts()["files"]
            sizes = {name: self.part(name).stat().st_size for name in PARTS}
            return (
                sizes == self.facts()["sizes"]
                and bool(files)
                and all(stamp(path) == then for path, then in files.items())
            )
        except (OSError, ValueError, LookupError, AttributeError, TypeError):  # whatever a manifest may hold
            return False

    def is_intact(self) -> bool:
        """Whether its parts are what was written, to the bit. That takes a third of a second."""
        try:
            return all(digest(self.part(name)) == then for name, then in self.facts()["digests"].items())
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            return False

    def open(self) -> tuple[int, int] | None:
        """Descriptors of memory and devices, to be closed by the caller; None when they are gone.

        Raises VmError when they are not this user's alone: who writes a state decides what runs in the guest,
        and what QEMU makes of it.
        """
        found: list[int] = []
        parts = ((self.path, os.O_DIRECTORY), (self.memory, os.O_RDWR), (self.devices, os.O_RDONLY))
        try:
            for path, how in parts:
                found.append(os.open(path, how | os.O_NOFOLLOW | os.O_CLOEXEC))
                _check_is_ours(path, found[-1])
            fcntl.flock(found[1], fcntl.LOCK_SH)  # QEMU, which gets this descriptor, holds it until it ends
            if not os.path.samestat(self.memory.stat(), os.fstat(found[1])):
                raise FileNotFoundError(self.memory)
            os.utime(self.path)  # it was used now
        except BaseException as error:
            for fd in found:
                os.close(fd)
            if isinstance(error, FileNotFoundError):
                return None
            if isinstance(error, OSError):
                raise _not_ours(self.path, error.strerror or "it can't be opened") from error
            raise
        os.close(found[0])
        return found[1], found[2]

    @property
    def size(self) -> int:
        """What it takes on the disk, in bytes."""
        return sum(p.stat().st_blocks * 512 for p in self.path.iterdir())

    @property
    def unused(self) -> float:
        """Seconds since it was last used."""
        return time.time() - self.path.stat().st_mtime

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.time() - self.devices.stat().st_mtime

    def write_manifest(
        self, kernel: str, release: str, files: Iterable[str], seconds: Mapping[str, float] | None = None
    ) -> None:
        """Writes down what it is made of, and how many `seconds` the parts of the making took."""
        stamps = {path: stamp(path) for path in sorted(set(files))}
        facts = {"kernel": kernel, "release": release, "files": stamps, "seconds": seconds or {}}
        facts["sizes"] = {name: self.part(name).stat().st_size for name in PARTS}
        facts["digests"] = {name: digest(self.part(name)) for name in PARTS}
        with (self.path / "manifest.json").open("w") as file:
            json.dump(facts, file)
            file.flush()
            os.fsync(file.fileno())

    def close_to_others(self) -> None:
        """Leaves it to this user."""
        for path in self.path.iterdir():
            path.chmod(0o600)
        self.path.chmod(0o700)


def _check_is_ours(path: Path, fd: int) -> None:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        raise _not_ours(path, f"it belongs to user {status.st_uid}, and this is user {os.geteuid()}")
    if status.st_mode & 0o022:
        raise _not_ours(path, f"others may write to it (mode {status.st_mode & 0o7777:04o})")


def _not_ours(path: Path, why: str) -> VmError:
    fix = "delete it; $BPFMAPS_CACHE should name a folder of your own"
    return VmError("will not restore a guest from", on=str(path), why=why, fix=fix)


def stamp(path: str) -> str:
    """What changes when a file does, or the packages in a folder; empty where nothing is."""
    try:
        status = os.stat(path)
        if not os.path.isdir(path):
            return f"{status.st_size} {status.st_mtime_ns}"
        kinds = (".dist-info", ".egg-info", ".egg-link", ".pth")
        packages = sorted(name for name in os.listdir(path) if name.endswith(kinds))
    except OSError:
        return ""
    return sha256("\n".join(packages).encode()).hexdigest()[:16]


def note_failure(state: SavedState, why: str) -> None:
    """Writes down that `state` could not be made, and why."""
    with suppress(OSError):
        write(_failure(state), why)


def last_failure(state: SavedState, seconds: float) -> tuple[float, str] | None:
    """How many seconds ago `state` could not be made, and why; None when that is more than `seconds` ago."""
    try:
        ago = time.time() - _failure(state).stat().st_mtime
        return (ago, _failure(state).read_text(errors="replace")) if ago < seconds else None
    except OSError:
        return None


def forget_failure(state: SavedState) -> None:
    """Takes note that `state` could be made."""
    _failure(state).unlink(missing_ok=True)


def _failure(state: SavedState) -> Path:
    return folder() / f".failed-{state.path.name}"


def states() -> list[SavedState]:
    """All of them, by name."""
    with suppress(OSError):
        found = [p for p in folder().iterdir() if not p.name.startswith(".")]
        return [SavedState(path) for path in sorted(found) if (path / "manifest.json").exists()]
    return []


def remove_outdated(keep: SavedState | None = None) -> list[SavedState]:
    """Deletes states that are not current, or were not used for `UNUSED_SECONDS`; returns them.

    One that a guest runs from stays.
    """
    gone = []
    staging.remove_abandoned(folder())
    for state in states():
        with suppress(OSError):
            old = state.unused > UNUSED_SECONDS or not state.is_current()
            if state != keep and old and remove_unused(state):
                gone.append(state)
    return gone


def remove_unused(state: SavedState) -> bool:
    """`remove`, unless a guest runs from it; tells whether it is gone."""
    with staging.unused(state.memory) as free:
        if free:
            remove(state)
        return free


def remove(state: SavedState) -> None:
    """Deletes it, in one step for whoever looks. Raises OSError."""
    with staging.staging(folder()) as trash:
        state.path.rename(trash / state.path.name)
