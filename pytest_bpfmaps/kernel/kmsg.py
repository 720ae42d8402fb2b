"""Reads new lines of the kernel's log, ``/dev/kmsg``, and the complaints in them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_bpfmaps.kernel.splats import Splat

PATH = "/dev/kmsg"
ONCE = "/sys/kernel/debug/clear_warn_once"
RECORD = 8192  # bytes of the longest record that the kernel returns
PATIENCE_MS = 200  # milliseconds to wait for the rest of a complaint that another CPU is printing
_OOM_KILL = re.compile(r"Killed process (\d+) \(")
_SECCOMP_KILL = re.compile(r"audit: type=1326 .* pid=(\d+) .* syscall=(\d+) ")  # AUDIT_SECCOMP
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


class KernelLog:
    """What the kernel logs from now on. Raises OSError if this user can't read the log."""

    def __init__(self) -> None:
        self._fd = os.open(PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # where the device is missing, a program that writes to it makes a file
        if not stat.S_ISCHR(os.fstat(self._fd).st_mode):
            self.close()
            raise OSError(errno.ENODEV, "it is no device", PATH)
        self.skip()

    def skip(self) -> None:
        """Skips all lines that are in the log now."""
        os.lseek(self._fd, 0, os.SEEK_END)

    def lines(self) -> list[str]:
        """Returns the kernel's own new lines, without those that programs wrote into the log."""
        found: list[str] = []
        while True:
            try:
                record = os.read(self._fd, RECORD)
            except BlockingIOError:
                return found
            except BrokenPipeError:  # the kernel has overwritten older records
                continue
            head, _, text = record.decode(errors="replace").partition(";")
            if int(head.partition(",")[0]) < 8:  # facility 0
                found.append(_ESCAPE.sub(lambda code: chr(int(code[1], 16)), text.partition("\n")[0]))

    def complaints(self) -> list[Splat]:
        """Returns the kernel's new complaints, each complete."""
        lines = self.lines()
        if not lines:
            return []
        from pytest_bpfmaps.kernel.splats import splats  # most runs never need it

        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while (found := splats(lines)) and not found[-1].is_whole and poll.poll(PATIENCE_MS):
            lines += self.lines()
        return found

    def warn_again(self) -> None:
        """Re-enables warnings that the kernel prints once per boot (`WARN_ON_ONCE`). Linux 4.15, debugfs."""
        with contextlib.suppress(OSError), open(ONCE, "w") as file:
            file.write("1")

    def close(self) -> None:
        """Closes the log. Safe to call again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def oom_killed(since: float) -> set[int]:
    """Returns the ids of the processes that the OOM killer has killed since that time.

    The time is that of ``CLOCK_MONOTONIC``, in seconds. The result is empty where the log can't be read.
    """
    return {int(found[1]) for record in _records(since) if (found := _OOM_KILL.search(record))}


def seccomp_killed(pid: int, since: float) -> int | None:
    """Returns the number of the system call for which a seccomp filter has ended a process since that time.

    The time is as for `oom_killed`. The result is None where the kernel did not log it.
    """
    for record in _records(since):
        if (found := _SECCOMP_KILL.search(record)) and int(found[1]) == pid:
            return int(found[2])
    return None


def _records(since: float) -> Iterator[str]:
    with contextlib.suppress(OSError):  # BlockingIOError after the last record
        fd = os.open(PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            while True:
                try:
                    record = os.read(file.fileno(), RECORD).decode(errors="replace")
                except BrokenPipeError:  # the kernel has overwritten older records
                    continue
                if int(record.split(",", 3)[2]) >= (since - 1) * 1e6:  # microseconds
                    yield record
