"""The terminal that this process runs in: its size, and its raw mode, in which each key goes to a guest."""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

LEFT = (24, 80)  # rows and columns of a terminal that tells none


def terminal_size(fd: int) -> list[int]:
    """Returns rows and columns of the terminal `fd`; those of a VT100 if it does not know them."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return [*LEFT]
    return [rows or LEFT[0], columns or LEFT[1]]


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Puts the terminal `fd` into raw mode, and back at the end: termios(3).

    A process that was stopped (SIGSTOP) and goes on enters raw mode again: its shell has changed the mode.
    Raises OSError when the terminal is gone.
    """
    try:
        before = termios.tcgetattr(fd)
        tty.setraw(fd)
    except termios.error as error:
        raise OSError(*error.args) from error
    earlier = signal.signal(signal.SIGCONT, lambda *_: _again(fd))
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, earlier)
        with suppress(termios.error, OSError):  # it was closed
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _again(fd: int) -> None:
    with suppress(termios.error, OSError):
        tty.setraw(fd)


@contextmanager
def handled(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    """Has `handler` called for these signals."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
