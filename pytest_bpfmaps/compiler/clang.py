"""Finds clang and runs it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.errors import CompileError

_CLANG = re.compile(r"clang(?:-(\d+))?$")
_LARGEST_FILE, _LONGEST_OUTPUT, _MEMORY = 256 << 20, 4 << 20, 4 << 30
_VERSION = re.compile(r"clang version (\d+(?:\.\d+)*)")

INSTALL = (
    "install clang 14 or later: 'apt-get install clang' on Debian and Ubuntu, 'dnf install clang' on Fedora "
    "and RHEL, 'zypper install clang' on openSUSE, 'pacman -S clang' on Arch, 'apk add clang' on Alpine; or "
    "name one that is elsewhere with --bpf-clang or $CLANG"
)


@dataclass(frozen=True)
class Clang:
    """A clang executable. `identity` changes when another binary takes its place."""

    path: str
    identity: str

    @property
    def version(self) -> str:
        """The version, such as ``"19.1.7"``; empty if unknown. It runs clang, which a cache hit must not."""
        found = _VERSION.search(run([self.path, "--version"], timeout=20).output)
        return found[1] if found else ""


def find_clang(explicit: str | None, versions: Path) -> Clang:
    """Returns `explicit`, else ``$CLANG``, else the newest ``clang-N`` or ``clang`` on ``$PATH``.

    `versions` is a folder that keeps the version of each plain ``clang``, so that each is asked only once.
    Raises `CompileError` when there is no clang.
    """
    for wanted, origin in ((explicit, "--bpf-clang"), (os.environ.get("CLANG"), "$CLANG")):
        if wanted:
            return _named(wanted, origin)
    candidates = dict(_installed())
    if not candidates:
        raise CompileError("cannot find clang", why="no clang or clang-N in $PATH", fix=INSTALL)
    numbered = {number: path for number, path in candidates.items() if number is not None}
    plain = candidates.get(None)
    if not numbered or (plain and _newer(plain, numbered, versions)):
        return _clang(candidates[None])
    return _clang(numbered[max(numbered)])


def _named(wanted: str, origin: str) -> Clang:
    path = shutil.which(wanted)
    if path:
        return _clang(os.path.abspath(path))
    known = sorted(os.path.basename(path) for _, path in _installed())
    raise CompileError(
        "cannot find clang",
        on=repr(wanted),
        why=f"{origin} names it, but there is no such executable file, also not in $PATH",
        fix=f"use one of these: {', '.join(known)}" if known else INSTALL,
    )


def _installed() -> tuple[tuple[int | None, str], ...]:
    return _in_folders(os.environ.get("PATH", os.defpath))


@functools.cache  # reading /usr/bin takes longer than the rest of a cache hit
def _in_folders(path_list: str) -> tuple[tuple[int | None, str], ...]:
    """Returns (version, path) of the first clang of each version; the version of ``clang`` is None."""
    found: dict[int | None, str] = {}
    for folder in path_list.split(os.pathsep):
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                match = _CLANG.match(name)
                if match and os.access(path := os.path.abspath(os.path.join(folder, name)), os.X_OK):
                    found.setdefault(int(match[1]) if match[1] else None, path)
    return tuple(found.items())


def _newer(plain: str, numbered: dict[int, str], versions: Path) -> bool:
    """Returns whether the plain ``clang`` is newer than every ``clang-N``.

    Usually it is a link to one of them.
    """
    if any(os.path.samefile(plain, path) for path in numbered.values()):
        return False
    return _major(_clang(plain), versions) > max(numbered)


def _major(clang: Clang, versions: Path) -> int:
    from pytest_bpfmaps.cache.stored_files import digest, read_checked, write_checked

    memo = versions / digest(clang.identity)
    known = read_checked(memo)
    if known is not None and known.isdecimal():
        return int(known)
    major = int(clang.version.partition(".")[0] or 0)
    with contextlib.suppress(OSError):
        write_checked(memo, str(major))
    return major


def _clang(path: str) -> Clang:
    real = os.path.realpath(path)
    status = os.stat(real)
    return Clang(path, f"{path}={real}:{status.st_mtime_ns}:{status.st_size}")


@dataclass(frozen=True)
class Outcome:
    """How a run of clang ended; a negative `code` is a signal. `output` has file names as Python has them."""

    code: int
    output: str


def run(command: Sequence[str], *, timeout: float) -> Outcome:
    """Runs a command, and returns its standard output and error together. `timeout` is in seconds.

    The command may write files of `_LARGEST_FILE` bytes, and use `_MEMORY` bytes: without limits, a source
    could ask for any amount. Output beyond `_LONGEST_OUTPUT` bytes is left out. Raises `TimeoutError`
    after it has killed the command and all that the command started, and `OSError` if it can't start.
    """
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        with contextlib.suppress(OSError, ValueError):  # it has ended, or has lower limits already
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        try:
            process.wait(timeout)
        except BaseException as e:
            # the children of a wrapper script would go on, so the whole session is ended
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(e, subprocess.TimeoutExpired):
                raise TimeoutError(f"no answer within {timeout:g} s") from None
            raise
        said.seek(0)
        output = said.read(_LONGEST_OUTPUT)
    return Outcome(process.returncode, os.fsdecode(output))
