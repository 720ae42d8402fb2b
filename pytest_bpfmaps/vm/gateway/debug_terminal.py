"""Lends the terminal of pytest to a guest while a person debugs a test in it."""

from __future__ import annotations

import json
import os
import select
import socket
import termios
import threading
import tty
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.gateway.own_terminal import terminal_size
from pytest_bpfmaps.vm.protocol.terminal import LARGEST, SIZE, STDIN, STDOUT, Frames, frame

OWN = "/dev/tty"  # the terminal that this process belongs to: tty(4)
LOOK = 1.0  # seconds between two looks at the terminal's size


class DebugTerminal:
    """The terminal of pytest. `refusal` says why it can't be lent, if so.

    When the terminal goes away while the guest has it, the guest reads the end of its input, and `gone` is
    called.
    """

    def __init__(self, refusal: str | None = None, gone: Callable[[], None] = lambda: None) -> None:
        self._refusal, self._gone = refusal, gone
        self._fd: int | None = None
        self._before: list[Any] = []
        self._thread: threading.Thread | None = None
        self._frames = Frames()

    @property
    def is_open(self) -> bool:
        """Whether the guest has it."""
        return self._fd is not None

    def open(self, port: socket.socket) -> str:
        """Lends it to the guest at `port`. Returns rows and columns as JSON. Raises `VmError`."""
        if self._refusal is not None:
            fix = "run the test alone: pytest --bpf-kernel=NAME FILE::TEST, without -n"
            raise VmError("cannot debug in a guest", why=self._refusal, fix=fix)
        if self._fd is None:
            try:
                fd = os.open(OWN, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as error:
                why, fix = (
                    f"pytest has no terminal ({error.strerror})",
                    "run it in a terminal, without nohup or setsid",
                )
                raise VmError("cannot debug in a guest", why=why, fix=fix) from None
            self._before = termios.tcgetattr(fd)
            tty.setraw(fd, termios.TCSADRAIN)  # keeps what was typed after a prompt
            self._fd = fd
            self._closing, self._close = os.pipe2(os.O_CLOEXEC)
            self._thread = threading.Thread(target=self._pass_on, args=(fd, port), daemon=True)
            self._thread.start()
        return json.dumps(terminal_size(self._fd))

    def close(self) -> None:
        """Takes it back, in the mode that it had. Safe to call again."""
        if self._fd is None or self._thread is None:
            return
        os.write(self._close, b"x")
        self._thread.join(LOOK)
        with suppress(termios.error, OSError):
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        for fd in (self._fd, self._closing, self._close):
            os.close(fd)
        self._fd = self._thread = None

    def _pass_on(self, fd: int, port: socket.socket) -> None:
        size, wanted = terminal_size(fd), [port.fileno(), self._closing, fd]
        with suppress(OSError, ValueError):
            while True:
                ready = select.select(wanted, [], [], LOOK)[0]
                if port.fileno() in ready:
                    data = port.recv(LARGEST)
                    if not data:
                        return
                    for kind, text in self._frames.feed(data):
                        if kind == STDOUT and fd in wanted:
                            with suppress(OSError):  # the terminal is gone, which reading it shows
                                os.write(fd, text)
                elif self._closing in ready:  # after what the guest has written
                    return
                if fd in ready:
                    data = _typed(fd)
                    port.sendall(frame(STDIN, data))
                    if not data:
                        wanted.remove(fd)
                        self._gone()
                if fd in wanted and size != (size := terminal_size(fd)):
                    port.sendall(frame(SIZE, json.dumps(size).encode()))


class LentTerminal:
    """The terminal of pytest, as a guest asks for it. No time of the test counts while the guest has it.

    `tell` takes the event ``hold`` when the countdown must wait, and ``answered`` when it goes on.
    """

    def __init__(self, refusal: str | None, tell: Callable[[str], None]) -> None:
        self._terminal = DebugTerminal(refusal, self._count_again)
        self._tell = tell
        self._holds = False  # whether the countdown waits

    def use(self, port: socket.socket, wanted: str) -> str:
        """Lends the terminal to the guest at `port` if `wanted` is ``open``, else takes it back.

        Returns rows and columns as JSON, or nothing.
        """
        if wanted != "open":
            self.close()
            return ""
        had = self._terminal.is_open
        size = self._terminal.open(port)
        if not had:
            self._holds = True
            self._tell("hold")
        return size

    def close(self) -> None:
        """Takes it back. Safe to call again."""
        self._terminal.close()
        self._count_again()

    def _count_again(self) -> None:
        if self._holds:
            self._holds = False
            self._tell("answered")


def _typed(fd: int) -> bytes:
    """Returns what was typed; nothing where the terminal is gone."""
    try:
        return os.read(fd, LARGEST)
    except OSError:
        return b""
