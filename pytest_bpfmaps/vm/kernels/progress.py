"""Shows what a long command is doing: one live line on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

from pytest_bpfmaps.errors import shown_lines


class Progress:
    """Writes steps to `stream` (default: stderr, so that stdout has only data)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._step = ""

    def step(self, text: str, percent: float | None = None) -> None:
        """Shows the step `text`, and how much of it is done in `percent` (0 to 100), if that is known."""
        text = shown_lines(text)
        if self._live:
            share = "" if percent is None else f" {percent:3.0f}%"
            self._write(f"\r\033[K{text}{share}")
        elif text != self._step:
            self._write(text + "\n")
        self._step = text

    def done(self, text: str) -> None:
        """Writes `text`, which stays on the terminal, in place of the live line."""
        self._write(("\r\033[K" if self._live else "") + shown_lines(text) + "\n")
        self._step = ""

    def clear(self) -> None:
        """Removes the live line."""
        if self._live and self._step:
            self._write("\r\033[K")
        self._step = ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Silent(Progress):
    """Shows nothing, for callers that are no command."""

    def _write(self, text: str) -> None:
        pass
