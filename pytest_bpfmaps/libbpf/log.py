"""Captures libbpf's log messages, for each call and each thread.

libbpf has one print callback for the whole process, and calls it in the thread that called libbpf. So each
thread has its own stack of captures. Messages without a capture go to the logger ``pytest_bpfmaps.libbpf``,
which pytest shows for a failing test.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from pytest_bpfmaps.libbpf._declarations import ffi as _ffi

ffi: Any = _ffi

WARN, INFO, DEBUG = 0, 1, 2
_LEVELS = {WARN: logging.WARNING, INFO: logging.INFO, DEBUG: logging.DEBUG}

_logger = logging.getLogger("pytest_bpfmaps.libbpf")
_local = threading.local()
_callbacks: list[Any] = []  # cffi callbacks must outlive the library that calls them


class LogCapture:
    """What libbpf printed while the capture was open: (level, text) pairs; a text has its newline."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.messages: list[tuple[int, str]] = []

    @property
    def text(self) -> str:
        """All messages, each without libbpf's own prefix."""
        return "".join(m.removeprefix("libbpf: ") for _, m in self.messages)


@contextlib.contextmanager
def capture_log(level: int = INFO) -> Iterator[LogCapture]:
    """Collects what libbpf prints in this thread, up to `level` (`WARN`, `INFO`, `DEBUG`)."""
    capture = LogCapture(level)
    stack = _stack()
    stack.append(capture)
    try:
        yield capture
    finally:
        stack.remove(capture)


def add_message(text: str) -> None:
    """Adds what libbpf would say, where this package does a part of libbpf's work."""
    for capture in _stack()[-1:]:
        capture.messages.append((WARN, text))


def _stack() -> list[LogCapture]:
    try:
        return _local.stack  # type: ignore[no-any-return]
    except AttributeError:
        _local.stack = []
        return _local.stack  # type: ignore[no-any-return]


def install(handle: Any) -> None:
    """Has the library that was just opened send its messages here."""
    libc = ffi.dlopen(None)

    @ffi.callback("int(int, const char *, void *)")  # type: ignore[untyped-decorator]
    def on_message(level: int, format: Any, arguments: Any) -> int:
        stack = _stack()
        wanted = stack[-1].level if stack else (DEBUG if _logger.isEnabledFor(logging.DEBUG) else INFO)
        if level > wanted:
            return 0  # formatting hundreds of debug lines per load would cost more than the load
        text = format_va_list(libc, format, arguments)
        if stack:
            stack[-1].messages.append((level, text))
        else:
            _logger.log(_LEVELS.get(level, logging.INFO), "%s", text.rstrip("\n"))
        return len(text)

    _callbacks.append(on_message)
    handle.libbpf_set_print(on_message)


def format_va_list(libc: Any, format: Any, arguments: Any) -> str:
    """Returns the text of a C format and its ``va_list``; a verifier log may have megabytes."""
    out = ffi.new("char **")
    if libc.vasprintf(out, format, arguments) < 0:
        return str(ffi.string(format).decode(errors="replace"))
    try:
        return str(ffi.string(out[0]).decode(errors="replace"))
    finally:
        libc.free(out[0])
