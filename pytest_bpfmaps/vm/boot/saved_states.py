"""Saved states of guests on disk: what each was made of, which are current, and which can be deleted.

A state is a folder below `folder()`, ``KERNEL-KEY``. It has ``memory`` (as large as the guest's memory, with
holes where it is zero), ``devices`` (everything else, as QEMU writes it), and ``manifest.json``. It appears
whole or not at all.
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
from pytest_bpfmaps.vm.boot.bytecode import without_bytecode

PARTS = ("memory", "devices")
UNUSED_SECONDS = 30 * 86400.0  # after this time a current state is deleted, too

_CHANGED = "changed while the state was made"
_CLOCK_S = 0.02  # a file system's clock is behind by as much as a tick of the kernel


def folder() -> Path:
    """Returns the folder where states are kept."""
    return paths.cache_dir() / "warm"


@dataclass(frozen=True)
class SavedState:
    """A saved state."""

    path: Path

    def part(self, name: str) -> Path:
        """Returns the path of one of `PARTS`."""
        return self.path / name

    @property
    def memory(self) -> Path:
        """The file with the guest's memory."""
        return self.part("memory")

    @property
    def devices(self) -> Path:
        """The file with the rest of the machine."""
        return self.part("devices")

    def facts(self) -> dict[str, Any]:
        """Returns ``kernel``, ``release``, ``files``, ``seconds`` … of the manifest.

        Raises OSError, ValueError.
        """
        facts: dict[str, Any] = json.loads((self.path / "manifest.json").read_text())
        return facts

    def is_current(self) -> bool:
        """Returns whether everything that it was made of is unchanged."""
        try:
            files = self.facts()["files"]
            sizes = {name: self.part(name).stat().st_size for name in PARTS}
            return (
                sizes == self.facts()["sizes"]
                and bool(files)
                and all(stamp(path) == then for path, then in files.items())
            )
        except (OSError, ValueError, LookupError, AttributeError, TypeError):  # a manifest may hold anything
            return False

    def is_intact(self) -> bool:
        """Returns whether its parts are exactly what was written. That takes a third of a second."""
        try:
            return all(digest(self.part(name)) == then for name, then in self.facts()["digests"].items())
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            return False

    def open(self) -> tuple[int, int] | None:
        """Returns descriptors of memory and devices, which the caller closes; None when they are gone.

        Raises VmError when others may write to them: whoever writes a state decides what runs in the guest,
        and what QEMU reads.
        """
        found: list[int] = []
        parts = ((self.path, os.O_DIRECTORY), (self.memory, os.O_RDWR), (self.devices, os.O_RDONLY))
        try:
            for path, how in parts:
                found.append(os.open(path, how | os.O_NOFOLLOW | os.O_CLOEXEC))
                _check_is_ours(path, found[-1])
            # QEMU inherits this descriptor, and holds the lock until it ends.
            fcntl.flock(found[1], fcntl.LOCK_SH)
            if not os.path.samestat(self.memory.stat(), os.fstat(found[1])):
                raise FileNotFoundError(self.memory)
            os.utime(self.path)  # notes when it was used
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
        """How many bytes it takes on the disk."""
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
        self,
        kernel: str,
        release: str,
        files: Iterable[str],
        seconds: Mapping[str, float] | None = None,
        *,
        began: float | None = None,
    ) -> None:
        """Writes what it is made of, and how many `seconds` each step of the making took.

        A file that changed after `began`, in seconds since 1970, may be in it as it was before. Such a state
        serves no later run. Bytecode does not count: each process that imports a module first may write it.
        """
        stamps = {
            path: _CHANGED if began is not None and _changed_since(path, began) else stamp(path)
            for path in sorted(set(without_bytecode(files)))
        }
        facts = {"kernel": kernel, "release": release, "files": stamps, "seconds": seconds or {}}
        facts["sizes"] = {name: self.part(name).stat().st_size for name in PARTS}
        facts["digests"] = {name: digest(self.part(name)) for name in PARTS}
        with (self.path / "manifest.json").open("w") as file:
            json.dump(facts, file)
            file.flush()
            os.fsync(file.fileno())

    def close_to_others(self) -> None:
        """Lets only this user read and write it."""
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


def _changed_since(path: str, began: float) -> bool:
    try:
        return not os.path.isdir(path) and os.stat(path).st_ctime > began - _CLOCK_S
    except OSError:
        return False


def stamp(path: str) -> str:
    """Returns a text that changes with a file, or with the packages in a folder; empty where nothing is."""
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
    """Notes that `state` could not be made, and why."""
    with suppress(OSError):
        write(_failure(state), why)


def last_failure(state: SavedState, seconds: float) -> tuple[float, str] | None:
    """Returns how many seconds ago making `state` failed, and why; None when it was before `seconds`."""
    try:
        ago = time.time() - _failure(state).stat().st_mtime
        return (ago, _failure(state).read_text(errors="replace")) if ago < seconds else None
    except OSError:
        return None


def forget_failure(state: SavedState) -> None:
    """Notes that `state` could be made."""
    _failure(state).unlink(missing_ok=True)


def _failure(state: SavedState) -> Path:
    return folder() / f".failed-{state.path.name}"


def states() -> list[SavedState]:
    """Returns all states, by name."""
    with suppress(OSError):
        found = [p for p in folder().iterdir() if not p.name.startswith(".")]
        return [SavedState(path) for path in sorted(found) if (path / "manifest.json").exists()]
    return []


def remove_outdated(keep: SavedState | None = None) -> list[SavedState]:
    """Deletes states that are not current, or were not used for `UNUSED_SECONDS`; returns them.

    A state that a guest runs from is kept.
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
    """Removes a state, unless a guest runs from it. Returns whether it is gone."""
    with staging.unused(state.memory) as free:
        if free:
            remove(state)
        return free


def remove(state: SavedState) -> None:
    """Deletes a state. Other processes see it whole or not at all. Raises OSError."""
    with staging.staging(folder()) as trash:
        state.path.rename(trash / state.path.name)
