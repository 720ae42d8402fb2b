"""A program in a terminal, and a person who types and reads. Tests of terminals use it."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress

SILENCE_S = 300
"""How long a program may write nothing: a guest's first start may make a saved state, on a busy machine."""
PATIENCE_S = 20
"""After how long a person presses Ctrl-C once more."""


def own_terminal() -> None:
    """Makes standard input the terminal of this session, which sends signals to its processes."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # whatever started the tests may ignore it
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Person:
    """A program in a terminal of its own, with a person before it."""

    def __init__(self, command: Sequence[str], rows: int = 31, columns: int = 87) -> None:
        self.screen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.master, self._slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.master)
        self.process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=own_terminal,  # noqa: PLW1509 - this process has one thread
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def quits(self) -> int:
        """Types q, and returns the exit status."""
        self.type("q")
        return self.process.wait(SILENCE_S)

    def interrupts(self) -> None:
        """Presses Ctrl-C until the program writes something.

        Python loses a Ctrl-C that comes between its prompt and its wait for a line: 9 of 3000 on a
        busy machine.
        """
        for _ in range(SILENCE_S // PATIENCE_S):
            self.type("\x03")
            if self._writes(PATIENCE_S):
                return
        raise AssertionError(f"Ctrl-C did nothing: {self.screen!r}")

    def sees(self, pattern: str) -> str:
        """Reads until the pattern is on the screen, and forgets all up to it. Returns what was before."""
        while (found := re.search(pattern, self.screen)) is None:
            assert self._writes(SILENCE_S), f"{pattern!r} did not come: {self.screen!r}"
            self.screen += self._decoder.decode(os.read(self.master, 4096))
        before, self.screen = self.screen[: found.start()], self.screen[found.end() :]
        return before

    def _writes(self, limit_s: float) -> bool:
        return bool(select.select([self.master], [], [], limit_s)[0])

    def close(self) -> None:
        """Closes the terminal's window."""
        for fd in (self.master, self._slave):
            with suppress(OSError):
                os.close(fd)

    def end(self) -> None:
        """Closes the window, and kills the program if it does not end by that."""
        self.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        self.process.kill()
        self.process.wait()
