"""A terminal of the guest whose other side is the host's, for the worker itself."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import struct
import sys
import termios
import threading
import time

from pytest_bpfmaps.vm.protocol.terminal import LARGEST, SIZE, STDIN, STDOUT, Frames, frame

STREAMS = (0, 1, 2)
END_OF_INPUT = b"\x04\x04"  # in a line that was begun, the first Ctrl-D only ends the line: termios(3)
DRAINED = 2.0  # seconds that the last output may take to leave


class OwnPty:
    """Puts a terminal in place of this process's standard streams, between `begin` and `end`.

    It stays open until the process ends: the kernel ends a process that loses its terminal. `port` is a
    descriptor of the virtio-serial port.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        os.set_blocking(port, False)
        self._master, self._slave = os.openpty()
        self._streams: list[int] = []
        self._frames = Frames()
        self._used = threading.Event()
        with contextlib.suppress(OSError):  # a test has made another one the terminal of this session
            fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)
        threading.Thread(target=self._pass_on, daemon=True).start()

    def begin(self, size: list[int]) -> None:
        """Makes it the standard input, output and error of this process."""
        self.resize(size)
        _flush()
        self._streams = [os.dup(fd) for fd in STREAMS]
        for fd in STREAMS:
            os.dup2(self._slave, fd, inheritable=True)

    def end(self, *, restore: bool) -> None:
        """Waits until all output has left. With `restore` it puts back the streams that `begin` found."""
        _flush()
        with contextlib.suppress(termios.error):
            termios.tcdrain(self._slave)
        until = time.monotonic() + DRAINED
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while poll.poll(0) and time.monotonic() < until:
            time.sleep(0.01)
        for fd, saved in zip(STREAMS, self._streams, strict=False):
            if restore:
                os.dup2(saved, fd, inheritable=True)
            os.close(saved)
        self._streams = []

    def resize(self, size: list[int]) -> None:
        """Tells the programs of this terminal its rows and columns."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def _pass_on(self) -> None:
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        poll.register(self._port, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if ready.get(self._port, 0) & select.POLLIN:
                self._take()
            if ready.get(self._master):
                self._write(frame(STDOUT, os.read(self._master, LARGEST)))

    def _take(self) -> None:
        try:
            data = os.read(self._port, LARGEST)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            return
        for kind, text in self._frames.feed(data):
            if kind == STDIN:
                os.write(self._master, text or END_OF_INPUT)
            elif kind == SIZE:
                self.resize(json.loads(text))

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._port, data) :]
            except BlockingIOError:
                select.select([], [self._port], [], 1.0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
