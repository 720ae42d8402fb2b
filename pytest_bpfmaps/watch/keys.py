"""The keys that a person types while the process waits."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pytest_bpfmaps.vm.gateway.own_terminal import handled


def terminal() -> int | None:
    """Returns the descriptor of standard input, if it is a terminal."""
    try:
        fd = sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):  # closed, or replaced
        return None
    return fd if os.isatty(fd) else None


@contextmanager
def single_keys(fd: int | None) -> Iterator[None]:
    """Has the terminal `fd` give each key at once, without showing it, and puts it back at the end.

    After Ctrl-Z and `fg` it does so again: the shell has changed the terminal.
    """
    if fd is None:
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd, termios.TCSANOW)  # keeps what was typed during a run
        with handled(lambda *_: tty.setcbreak(fd, termios.TCSANOW), signal.SIGCONT):
            yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(fd, termios.TCSANOW, before)
