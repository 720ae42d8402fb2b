"""Captures what programs print with ``bpf_printk``, in a tracefs instance of our own.

An instance has its own buffer. So processes that read at the same time don't take each other's lines, as they
would with the one global ``trace_pipe``. Every instance gets the lines of all programs on the machine. Lines
of the test's own programs are recognised by their format strings. ``bpf_printk`` is an event since Linux 5.9,
commit ac5a72ea5c89. https://docs.kernel.org/trace/ftrace.html#instances
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self, overload

from pytest_bpfmaps.errors import CaptureTimeoutError, UnsupportedError, strerror
from pytest_bpfmaps.kernel.release import shown_timeout, timeout_scale
from pytest_bpfmaps.kernel.tracefs import no_tracefs, tracefs

_PREFIX = "bpfmaps-"
_EVENT = "events/bpf_trace/bpf_trace_printk/enable"
_LOOK_AGAIN = 0.02
_CHUNK = 1 << 16
_CONVERSION = re.compile(r"%(?:%|[-+ #0]*\d*(?:\.\d+)?(?:hh|h|ll|l)?(?:p[a-zA-Z0-9]*|[diuxXsc]))")
_LINE = re.compile(
    r"^ *(?P<comm>.{1,16}?)-(?P<pid>\d+) +(?:\([^)]*\) +)?\[(?P<cpu>\d+)\] +\S+ +(?P<time>[\d.]+): "
    r"(?:bpf_trace_printk: )?(?P<text>.*)$"
)
_numbers = count()


class Line(str):
    """A printed text, with the thread that printed it: `comm`, `pid` (of the thread), `cpu`.

    `timestamp` is the time in seconds.
    """

    __slots__ = ("comm", "cpu", "pid", "timestamp")
    comm: str
    pid: int
    cpu: int
    timestamp: float

    def __new__(cls, text: str, comm: str = "", pid: int = 0, cpu: int = 0, timestamp: float = 0.0) -> Self:
        made = super().__new__(cls, text)
        made.comm, made.pid, made.cpu, made.timestamp = comm, pid, cpu, timestamp
        return made


class PrintkLog:
    """All lines that were printed since it was made; `close` removes the instance.

    `add_formats` restricts it to lines that the programs of an object can have printed. Without formats it
    takes all lines. Raises `UnsupportedError` if tracefs is absent or can't be written.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._formats: list[re.Pattern[str]] = []
        self._folder, self._pipe = _make_instance()
        self._rest = ""
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)

    def add_formats(self, formats: Iterable[str]) -> None:
        """Also accepts lines that fit one of these ``bpf_printk`` formats."""
        self._formats += [re.compile(_pattern(f), re.DOTALL) for f in formats]

    def drain(self) -> None:
        """Reads the lines that are there now."""
        text = self._rest
        while self._pipe >= 0:
            try:
                data = os.read(self._pipe, _CHUNK)
            except BlockingIOError:
                break
            if not data:
                break
            text += data.decode(errors="replace")
        *whole, self._rest = text.split("\n")
        for line in parse(whole):
            if not self._formats or any(f.fullmatch(line) for f in self._formats):
                self.lines.append(line)

    def wait(self, seconds: float) -> None:
        """Sleeps until a line may be there, for at most `seconds`."""
        self._poll.poll(max(seconds, 0) * 1000)

    def close(self) -> None:
        """Reads the last lines, and removes the instance. Safe to call again."""
        if self._pipe < 0:
            return
        self.drain()
        os.close(self._pipe)
        self._pipe = -1
        self._folder.rmdir()


class Printk(Sequence[Line]):
    """The lines since it began, oldest first; it grows while the ``with`` block runs."""

    def __init__(self, log: PrintkLog) -> None:
        log.drain()
        self._log: PrintkLog | None = log
        self._first = len(log.lines)
        self._lines: list[Line] = []

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> list[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | list[Line]:
        return self._now()[index]

    def __iter__(self) -> Iterator[Line]:
        return iter(self._now())

    def __eq__(self, other: object) -> bool:
        return self._now() == other if isinstance(other, list) else self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return repr(self._now())

    def wait(self, count: int = 1, timeout: float = 1.0) -> list[Line]:
        """Returns all lines, as soon as there are `count`; `timeout` is in seconds.

        Raises `CaptureTimeoutError` (an `AssertionError`) if they don't come in time.
        """
        lines = self._until(lambda lines: len(lines) >= count, timeout)
        if len(lines) < count:
            what = f"waited {shown_timeout(timeout)} for {count} line{'s' * (count != 1)} of bpf_printk"
            raise CaptureTimeoutError(what, why=f"{len(lines)} came", details=_show(lines))
        return lines

    def expect(self, text: str | re.Pattern[str], *, timeout: float = 1.0) -> list[Line]:
        """Returns the lines that contain the text, or a match of the pattern, as soon as there is one.

        `timeout` is in seconds. Raises `CaptureTimeoutError` (an `AssertionError`) if none comes in time.
        """
        fits: Callable[[str], Any] = (
            text.search if isinstance(text, re.Pattern) else lambda line: text in line
        )
        lines = self._until(lambda lines: any(map(fits, lines)), timeout)
        found = [line for line in lines if fits(line)]
        if not found:
            what = f"expected bpf_printk to print {text.pattern if isinstance(text, re.Pattern) else text!r}"
            why = f"none of {len(lines)} lines did in {shown_timeout(timeout)}"
            raise CaptureTimeoutError(what, why=why, details=_show(lines))
        return found

    def close(self) -> None:
        """Ends the capture; the lines stay. Safe to call again."""
        self._lines = self._now()
        self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _now(self) -> list[Line]:
        if self._log is None:
            return self._lines
        self._log.drain()
        return self._log.lines[self._first :]

    def _until(self, condition: Callable[[list[Line]], bool], timeout: float) -> list[Line]:
        end = time.monotonic() + timeout * timeout_scale()
        lines = self._now()
        while not condition(lines) and self._log is not None and (left := end - time.monotonic()) > 0:
            self._log.wait(min(left, _LOOK_AGAIN))
            lines = self._now()
        return lines


def parse(lines: Iterable[str]) -> list[Line]:
    """Returns the lines of ``trace_pipe``; a line without a header belongs to the text before it."""
    found: list[Line] = []
    for line in lines:
        head = _LINE.match(line)
        if head:
            comm = head["comm"] if head["comm"] != "<...>" else _name_of(head["pid"])
            found.append(Line(head["text"], comm, int(head["pid"]), int(head["cpu"]), float(head["time"])))
        elif found and line and not line.startswith("CPU:"):
            last = found[-1]
            found[-1] = Line(f"{last}\n{line}", last.comm, last.pid, last.cpu, last.timestamp)
    return found


def _name_of(pid: str) -> str:
    """Returns a thread's name from /proc. The trace lacks it if the thread was not scheduled meanwhile."""
    try:
        return Path("/proc", pid, "comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return "<...>"


def _pattern(format: str) -> str:
    """Returns a regular expression for what a format can print."""
    literal = _CONVERSION.split(format.rstrip("\n"))
    kinds = _CONVERSION.findall(format.rstrip("\n"))
    between = ["%" if kind == "%%" else " *[-+]?[0-9]+ *" if kind[-1] in "di" else ".*" for kind in kinds] + [
        ""
    ]
    return "".join(re.escape(text) + part for text, part in zip(literal, between, strict=True)) + "\n*"


def _make_instance() -> tuple[Path, int]:
    """Makes an instance with bpf_printk's event; returns its folder and a descriptor of its pipe."""
    root = tracefs()
    if root is None:
        why, fix = no_tracefs()
        raise UnsupportedError("cannot capture bpf_printk", why=why, fix=fix)
    _remove_stale(root / "instances")
    folder = root / "instances" / f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
    try:
        folder.mkdir()
        (folder / _EVENT).write_text("1")
        return folder, os.open(folder / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise UnsupportedError(
            "cannot capture bpf_printk", on=f"in {folder}", why=strerror(e.errno or 0), errno=e.errno
        ) from None


def _remove_stale(instances: Path) -> None:
    """Removes instances of killed processes; the kernel does not remove one that has a reader."""
    with contextlib.suppress(OSError):
        for folder in instances.glob(f"{_PREFIX}*-*"):
            if not Path("/proc", folder.name.split("-")[1]).exists():
                folder.rmdir()


def _show(lines: list[Line]) -> str | None:
    return "\n".join(f"  {line.comm}-{line.pid}: {line}" for line in lines[-10:]) or None
