"""A lock between processes. The wait has a limit, and the error names the process that holds the lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_bpfmaps.errors import VmTimeoutError


@contextmanager
def only_one(path: Path, what: str, seconds: float) -> Iterator[None]:
    """Holds the lock `path`. Another process may hold it for up to `seconds` to do `what`.

    Raises VmTimeoutError after that time.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        pid = holder(path)
        who = "another process" if pid is None else f"process {pid}"
        raise VmTimeoutError(
            f"cannot {what}:",
            on=str(path),
            why=f"{who} has held this lock for more than {seconds:g} s",
            fix=f"end {who}, if it hangs (ps -o pid,stat,cmd shows a stopped one as T)",
        ) from None
    try:
        yield
    finally:
        lock.release()


def holder(path: Path) -> int | None:
    """Returns the process that holds a lock on the file `path`, if /proc/locks tells: proc_locks(5)."""
    inode = f":{os.stat(path).st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1] != "->" and fields[5].endswith(inode):
            return int(fields[4])
    return None
