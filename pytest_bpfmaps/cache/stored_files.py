"""Files that are kept between runs: written whole, flushed to the disk, checked when they are read.

A damaged file counts as missing: the code that needs it makes it again, and prints a line about that. Only
this user may write to the folder of these files, because its files decide which code runs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import CacheError, shown_lines
from pytest_bpfmaps.paths import cache_dir

_OTHERS_MAY_WRITE = 0o022
_DIGITS = 32


def digest(*parts: str | bytes) -> str:
    """Returns a name for content, 32 hexadecimal digits. ``("ab", "c")`` and ``("a", "bc")`` differ."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape") if isinstance(part, str) else part
        state.update(b"%d:" % len(data))
        state.update(data)
    return state.hexdigest()[:_DIGITS]


def write(path: Path, content: str | bytes) -> None:
    """Writes `path` so that a reader sees the old content or the new, never a part. Raises `OSError`.

    That is true after a power failure, too: the content is on the disk before it gets its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode(errors="surrogateescape"))
        place(Path(temporary), path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def place(made: Path, target: Path) -> None:
    """Flushes a file to the disk, then gives it the name `target`. Raises `OSError`.

    Its mode becomes 0644, so that only its owner can write to it.
    """
    handle = os.open(made, os.O_RDONLY)
    try:
        os.fchmod(handle, 0o644)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(made, target)


def place_folder(made: Path, target: Path) -> None:
    """Does what `place` does, for a folder with its content. `target` must not exist. Raises `OSError`."""
    import ctypes

    handle = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle):  # one call; fsync would need one for each file
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(made))
    finally:
        os.close(handle)
    os.rename(made, target)


def write_checked(path: Path, text: str) -> None:
    """Writes text with its digest behind it, for `read_checked`. Raises `OSError`."""
    write(path, f"{text}\n{digest(text)}\n")


def read_checked(path: Path, *, only_ours: bool = True) -> str | None:
    """Returns the text that `write_checked` wrote; None when it is missing or damaged.

    With `only_ours`, a file that another user may have written counts as missing, too. A line tells the user
    of a damaged file.
    """
    try:
        raw = (read(path) if only_ours else path.read_bytes()).decode(errors="surrogateescape")
    except OSError:
        return None
    text, mark = raw[: -_DIGITS - 2], raw[-_DIGITS - 2 :]
    if mark == f"\n{digest(text)}\n":
        return text
    discard(path)
    return None


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `facts` with a digest of them."""
    return {**facts, "digest": digest(json.dumps(facts, sort_keys=True))}


def unsealed(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns what `sealed` got. Raises ValueError for a wrong digest, LookupError for a missing one."""
    rest = {name: value for name, value in facts.items() if name != "digest"}
    if facts["digest"] != digest(json.dumps(rest, sort_keys=True)):
        raise ValueError("it is not what was written")
    return rest


def remember(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes facts as `write_json` does, and ignores an OSError: the facts can be found out again."""
    with contextlib.suppress(OSError):
        write_json(path, facts)


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes facts with their digest, for `read_json`. Raises `OSError`."""
    write(path, json.dumps(sealed(facts), indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Returns what `write_json` wrote; empty when the file is missing or damaged.

    A line tells the user of a damaged file.
    """
    try:
        facts = json.loads(read(path))
        return unsealed(facts)
    except (OSError, LookupError):  # not there yet, or written by an older version
        return {}
    except (ValueError, TypeError, AttributeError, RecursionError):
        discard(path)
        return {}


def read(path: Path) -> bytes:
    """Returns the content of a file. Raises `OSError`.

    A file that others could have written counts as missing, and a line says so.
    """
    with open_file(path) as file:
        why = why_not_ours(os.fstat(file.fileno()))
        content = b"" if why else file.read()
    if why:
        discard(path, why)
        raise FileNotFoundError(why)
    return content


def read_any(path: Path, most: int = 64 << 20) -> bytes:
    """Returns the content of any user's file. Raises `OSError`, also for more than `most` bytes."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {round(most / 1e6)} MB")
        return file.read()


def open_file(path: Path) -> BufferedReader:
    """Opens a regular file. Raises `OSError` for others: a pipe may say nothing, a device may never end."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no file")
    return file


def why_not_ours(status: os.stat_result) -> str:
    """Returns why another user may have written a file or folder. Empty when only this user and root may.

    With sudo, the user who called it may, too: that user can run any program as root anyway.
    """
    users = {0, os.geteuid()}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdecimal():
        users.add(int(os.environ["SUDO_UID"]))
    if status.st_uid not in users:
        return f"it belongs to user {status.st_uid}, and this is user {os.geteuid()}"
    if status.st_mode & _OTHERS_MAY_WRITE and not stat.S_ISLNK(status.st_mode):
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def own(folder: Path) -> Path:
    """Returns `folder`, which is the cache or lies in it, and makes it when it is not there.

    Raises `CacheError` when others may write to it. When it can't be made, the later write will fail.
    """
    _check(cache_dir())
    return _check(folder)


@functools.cache
def _check(folder: Path) -> Path:
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    try:
        status = folder.stat()
    except OSError:
        return folder
    why = why_not_ours(status)
    if why:
        fix = "set BPFMAPS_CACHE to a folder of your own"
        if status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX:  # no folder like /tmp
            fix = f"`chmod -R go-w {folder}` if nobody else wrote there, else delete it; or {fix}"
        raise CacheError("will not use the cache", on=str(folder), why=why, fix=fix)
    return folder


def discard(path: Path, why: str = "it was damaged") -> None:
    """Removes a file that is to be made again, and says so."""
    with contextlib.suppress(OSError):
        path.unlink()
    tell(f"{path} is made again: {why}")


def _print(line: str) -> None:
    print(f"bpfmaps: {shown_lines(line)}", file=sys.stderr)


_listeners: list[Callable[[str], None]] = [_print]


def tell(line: str) -> None:
    """Passes a line about the cache to the newest listener; without one, prints it on stderr."""
    _listeners[-1](line)


@contextlib.contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Passes the lines of `tell` to `listener` until the end of the ``with`` block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """Makes a folder on the cache's own file system, so that its files can be renamed into place."""
    parent = root / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
