"""Gives a guest lines of pytest's standard input, where that is no terminal: ``echo yes | pytest -s``."""

from __future__ import annotations

import os
from contextlib import suppress

from pytest_bpfmaps.errors import VmError

NEWLINE = b"\n"


class PipedInput:
    """The input at `path`. `refusal` says why this guest can't have it, if so. Safe to close again."""

    def __init__(self, path: str, refusal: str | None) -> None:
        self._path, self._refusal = path, refusal
        self._fd: int | None = None

    def read_line(self, _: str) -> str:
        """Returns the next line; nothing at the end. Raises `VmError`, and `UnicodeDecodeError` for no UTF-8.

        It takes no byte after the line: another guest may want it.
        """
        if self._refusal is not None:
            fix = "run the test alone: pytest --bpf-kernel=NAME FILE::TEST, without -n"
            raise VmError("cannot read the input", why=self._refusal, fix=fix)
        if self._fd is None:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                fix = "give it a pipe or a file"
                raise VmError("cannot read pytest's input", why=error.strerror, fix=fix) from None
        line = b""
        while not line.endswith(NEWLINE) and (byte := os.read(self._fd, 1)):
            line += byte
        return line.decode()

    def close(self) -> None:
        """Closes the input."""
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = None
