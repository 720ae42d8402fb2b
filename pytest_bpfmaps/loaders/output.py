"""Collects what a process writes. Of a long text it keeps the beginning and the end."""

from __future__ import annotations

import os
import re
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

_FIRST, _LAST = 1 << 14, 1 << 16  # bytes of a stream that are kept from its beginning and from its end
_CHUNK = 1 << 16
_LONGEST = 1 << 14  # bytes of a line that is compared with a pattern
_DRAIN = 0.5  # seconds that the last bytes of a process may take

LineTest = Callable[[str], object]


class Stream:
    """The bytes of one stream that are kept. The lock of its `Collector` must be held in each call."""

    def __init__(self) -> None:
        self._first = bytearray()
        self._last: deque[bytes] = deque()
        self._last_size = 0
        self._rest = b""  # of a line that has no end yet
        self._has_ended = False
        self.size = 0

    def add(self, chunk: bytes) -> list[str]:
        """Keeps a chunk, and returns the lines that it ends."""
        self.size += len(chunk)
        room = _FIRST - len(self._first)
        self._first += chunk[:room]
        if len(chunk) > room:
            self._keep_last(chunk[room:])
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-_LONGEST:]
        return [line[:_LONGEST].decode(errors="replace") for line in lines]

    def end(self) -> list[str]:
        """Notes that nothing more comes. Returns the last line, if it has no line end."""
        self._has_ended = True
        return self.unfinished()

    def unfinished(self) -> list[str]:
        """Returns the line that has no end yet; an empty list if there is none."""
        return [self._rest.decode(errors="replace")] if self._rest else []

    def lines(self) -> list[str]:
        """Returns the lines that are kept, without one that has no end yet."""
        lines = self.text().split("\n")[:-1]
        return lines + self.unfinished() if self._has_ended else lines

    def _keep_last(self, chunk: bytes) -> None:
        self._last.append(chunk)
        self._last_size += len(chunk)
        while self._last_size - len(self._last[0]) >= _LAST:
            self._last_size -= len(self._last.popleft())

    def text(self) -> str:
        """Returns what is kept; a line in brackets says how much is left out."""
        last = b"".join(self._last)[-_LAST:]
        left_out = self.size - len(self._first) - len(last)
        gap = f"\n[… {left_out:,} bytes left out …]\n".encode() if left_out else b""
        return (bytes(self._first) + gap + last).decode(errors="replace")


class Collector:
    """Reads the standard output and the standard error of a process in a thread, until both end or `close`.

    The descriptors belong to this object, which closes them then.
    """

    def __init__(self, stdout: int, stderr: int) -> None:
        self._streams = {stdout: Stream(), stderr: Stream()}
        self._stdout, self._stderr = self._streams.values()
        self._changed = threading.Condition()
        self._tests: list[tuple[LineTest, list[str]]] = []
        self._open = 2
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._read, name="bpfmaps-output", daemon=True)
        self._thread.start()

    @property
    def stdout(self) -> str:
        """What came on standard output so far; of a long text, the beginning and the end."""
        return self._text(self._stdout)

    @property
    def stderr(self) -> str:
        """What came on standard error so far; of a long text, the beginning and the end."""
        return self._text(self._stderr)

    @property
    def has_ended(self) -> bool:
        """Whether nobody can write to either stream any more."""
        return self._open == 0

    def _text(self, stream: Stream) -> str:
        with self._changed:
            return stream.text()

    def find_line(self, test: LineTest, seconds: float, is_over: Callable[[], bool]) -> str | None:
        """Returns the first line, of those kept so far and of those to come, for which `test` is true.

        Returns None after `seconds`, or when `is_over` says so and all that was written is read. A line
        without an end counts only then, because more of it may still come.
        """
        with self._changed:
            kept = (line for each in self._streams.values() for line in each.lines())
            found = next(filter(test, kept), None)
            if found is not None:
                return found
            watch: tuple[LineTest, list[str]] = (test, [])
            self._tests.append(watch)
        end = time.monotonic() + seconds
        try:
            while True:
                over = is_over()
                if over:
                    self.drain()
                with self._changed:
                    if watch[1] or over or time.monotonic() >= end:
                        rest = (line for each in self._streams.values() for line in each.unfinished())
                        return next(filter(test, (*watch[1], *rest)), None)
                    self._changed.wait(min(0.05, max(end - time.monotonic(), 0)))
        finally:
            with self._changed:
                self._tests.remove(watch)

    def drain(self) -> None:
        """Waits until all that an ended process wrote is read.

        If a child keeps a stream open, it waits half a second.
        """
        self._thread.join(_DRAIN)

    def close(self) -> None:
        """Ends the reading. Safe to call again."""
        self._wake_thread()
        self._thread.join()

    def _wake_thread(self) -> None:
        with self._changed:
            woken, self._woken = self._woken, -1
        if woken >= 0:
            os.close(woken)

    def _read(self) -> None:
        try:
            self._read_until_end()
        finally:
            self._wake_thread()
            for fd in (*self._streams, self._wake):
                os.close(fd)

    def _read_until_end(self) -> None:
        with selectors.DefaultSelector() as selector:
            for fd in (*self._streams, self._wake):
                selector.register(fd, selectors.EVENT_READ)
            while self._open:
                for key, _ in selector.select():
                    if key.fd == self._wake:
                        return
                    self._take(selector, key.fd)

    def _take(self, selector: selectors.BaseSelector, fd: int) -> None:
        chunk = os.read(fd, _CHUNK)
        with self._changed:
            stream = self._streams[fd]
            lines = stream.add(chunk) if chunk else stream.end()
            for test, found in self._tests:
                found.extend(line for line in lines if not found and test(line))
            if not chunk:
                selector.unregister(fd)
                self._open -= 1
            self._changed.notify_all()


def line_test(wanted: str | re.Pattern[str]) -> LineTest:
    """Returns a test of a line: whether it contains a text, or a match of a pattern."""
    return wanted.search if isinstance(wanted, re.Pattern) else lambda line: wanted in line


def held_back(command: Sequence[str]) -> str:
    """Returns what to do if a process has not written a line, but perhaps keeps it in a buffer."""
    if os.path.basename(command[0]) == "stdbuf":
        return (
            "if it only needs longer, give timeout=; stdbuf does nothing for a program that is linked "
            "statically, or has buffers of its own, as Python's, which python -u turns off"
        )
    return (
        "if the program keeps its output in a buffer because it is no terminal, start it by stdbuf: "
        f"bpf.start({['stdbuf', '-oL', *command]!r})"
    )
