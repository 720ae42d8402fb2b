"""Runs one command in a guest for `bpfmaps shell` and `bpfmaps exec`, and connects it with the host.

The command has a terminal of the guest, or three pipes. One loop passes all bytes on, and never waits for one
side only. So everything else goes on when the command, or the host, does not read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import struct
import termios
import time
from typing import Any

from pytest_bpfmaps.vm.guest.cpus import start_all_cpus
from pytest_bpfmaps.vm.protocol.rpc import Lines
from pytest_bpfmaps.vm.protocol.terminal import (
    END,
    ENOUGH,
    LARGEST,
    STDERR,
    STDIN,
    STDOUT,
    Frames,
    frame,
)

IUTF8 = 0x4000  # termios(3): the kernel erases whole characters
SILENCE = (
    0.1  # seconds without output after which the rest belongs to what the command left in the background
)
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def run(order: dict[str, Any], control: int, port: int) -> None:
    """Runs the command of the host's `order`: ``argv``, and ``size`` if it has a terminal.

    `port` is a descriptor of the terminal's port.
    """
    start_all_cpus()
    os.set_blocking(port, False)
    try:
        connected = Command(order["argv"], order.get("size"), port, Lines(control))
    except OSError as error:
        last = frame(END, json.dumps({"errno": error.errno}).encode())
        os.set_blocking(port, True)
        os.write(port, last)
        return
    connected.serve()


class Command:
    """A running command, and what waits to be written to it and to the host."""

    def __init__(self, argv: list[str], size: list[int] | None, port: int, control: Lines) -> None:
        self._port, self._control = port, control
        self._frames = Frames()
        self._to_host, self._to_command = b"", b""
        self._input_ended = False
        self._terminal: int | None = None
        self._outputs: dict[int, bytes] = {}
        if size is None:
            self._pid = self._with_pipes(argv)
        else:
            self._pid = self._with_terminal(argv, size)
        self._process = os.pidfd_open(self._pid)

    def _with_pipes(self, argv: list[str]) -> int:
        (theirs, self._stdin), (out, their_out), (err, their_err) = os.pipe(), os.pipe(), os.pipe()
        self._outputs = {out: STDOUT, err: STDERR}
        pid = _spawn(
            argv, [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((theirs, their_out, their_err))]
        )
        for fd in (theirs, their_out, their_err):
            os.close(fd)
        for fd in (self._stdin, out, err):
            os.set_blocking(fd, False)
        return pid

    def _with_terminal(self, argv: list[str], size: list[int]) -> int:
        master, slave = os.openpty()
        os.set_blocking(master, False)
        self._terminal = self._stdin = master
        self._outputs = {master: STDOUT}
        settings = termios.tcgetattr(slave)
        settings[0] |= IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self._resize(size)
        # The leader of a session gets the first terminal that it opens as its own.
        first = (os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0)
        pid = _spawn(argv, [first, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)])
        os.close(slave)
        return pid

    def serve(self) -> None:
        """Passes bytes on until the command has ended, then sends the rest and its status."""
        while not self._pass_on(None).get(self._process):
            pass
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._process)
        self._process = -1
        last = time.monotonic()
        while self._outputs and time.monotonic() - last < SILENCE:
            if self._outputs.keys() & self._pass_on(SILENCE).keys():
                last = time.monotonic()
        # A shell gives this status to a program that a signal ended.
        self._to_host += frame(END, json.dumps({"status": 128 - status if status < 0 else status}).encode())
        self._outputs.clear()
        while self._to_host:
            self._pass_on(None)

    def _pass_on(self, seconds: float | None) -> dict[int, int]:
        """Waits for one thing that can be done, and does all that can be. Returns what was ready."""
        poll = select.poll()
        reads = select.POLLIN if len(self._to_command) < ENOUGH else 0
        poll.register(self._port, reads | (select.POLLOUT if self._to_host else 0))
        poll.register(self._control.fd, select.POLLIN)
        if self._process >= 0:
            poll.register(self._process, select.POLLIN)
        takes = select.POLLOUT if self._to_command and self._stdin >= 0 else 0
        gives = select.POLLIN if len(self._to_host) < ENOUGH else 0
        for fd in self._outputs:
            if events := gives | (takes if fd == self._terminal else 0):
                poll.register(fd, events)
        if takes and self._terminal is None:
            poll.register(self._stdin, takes)
        ready = dict(poll.poll(None if seconds is None else 1000 * seconds))
        if ready.get(self._control.fd):
            self._obey(self._control.receive())
        if ready.get(self._port, 0) & select.POLLIN:
            self._take(_read(self._port))
        for fd in [*self._outputs]:
            if ready.get(fd, 0) & ~select.POLLOUT:
                self._fetch(fd)
        self._write()
        return ready

    def _obey(self, message: dict[str, Any] | None) -> None:
        if message is None:
            raise EOFError("the host is gone")
        if "size" in message:
            self._resize(message["size"])
        elif "signal" in message:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, message["signal"])

    def _resize(self, size: list[int]) -> None:
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def _take(self, data: bytes) -> None:
        for kind, text in self._frames.feed(data):
            if kind == STDIN:
                self._to_command += text
                self._input_ended = self._input_ended or not text

    def _fetch(self, fd: int) -> None:
        try:
            data = os.read(fd, LARGEST)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # nobody has the other side of the terminal open any more
                raise
            data = b""
        if data:
            self._to_host += frame(self._outputs[fd], data)
        else:
            del self._outputs[fd]

    def _write(self) -> None:
        if self._to_host:
            with contextlib.suppress(BlockingIOError):
                self._to_host = self._to_host[os.write(self._port, self._to_host[:LARGEST]) :]
        if self._to_command and self._stdin >= 0:
            try:
                self._to_command = self._to_command[os.write(self._stdin, self._to_command[:LARGEST]) :]
            except BlockingIOError:
                pass
            except OSError:  # it reads no more
                self._close_stdin()
        if self._stdin < 0:
            self._to_command = b""
        elif self._input_ended and not self._to_command and self._terminal is None:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._terminal is None:
            os.close(self._stdin)
        self._stdin = -1


def _spawn(argv: list[str], files: list[Any]) -> int:
    """Starts a program as the leader of a session. Raises OSError."""
    return os.posix_spawnp(
        argv[0], argv, os.environ, file_actions=files, setsid=True, setsigmask=[], setsigdef=IGNORED_BY_PYTHON
    )


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, LARGEST)
    except BlockingIOError:
        return b""
