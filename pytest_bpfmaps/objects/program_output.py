"""Collects what programs of one `bpf` fixture print, for the test and for the report of a failure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from pytest_bpfmaps.compiler.portability import tell
from pytest_bpfmaps.errors import BpfError, UnsupportedError
from pytest_bpfmaps.events.printk import Printk, PrintkLog
from pytest_bpfmaps.objects.opened import OpenedObject
from pytest_bpfmaps.objects.repairs import refused_formats
from pytest_bpfmaps.programs.program import Program

_FORMAT = re.compile(r"\._{3,4}fmt(?:\.\d+)?$")  # the names of the variables that bpf_printk makes


class Output:
    """Listens as soon as an object with ``bpf_printk`` is opened; it opens nothing before that."""

    def __init__(self) -> None:
        self._log: PrintkLog | None = None
        self._reported = 0
        self._programs: list[Program] = []
        self._others: list[Callable[[], list[tuple[str, str]]]] = []

    def listen(self, opened: OpenedObject) -> None:
        """Collects what this object's programs print, where the kernel lets us.

        A format that the kernel refuses is a `PortabilityWarning`.
        """
        formats = [opened.globals[name] for name in opened.globals if _FORMAT.search(name)]
        if formats:
            tell(refused_formats(opened.path, opened.name, formats))
            with contextlib.suppress(UnsupportedError):
                self._open().add_formats(formats)

    def watch(self, programs: list[Program]) -> None:
        """Collects the streams of these programs, too."""
        self._programs += programs

    def add(self, sections: Callable[[], list[tuple[str, str]]]) -> None:
        """Adds a function that returns more sections."""
        self._others.append(sections)

    def printk(self) -> Printk:
        """Returns the lines that are printed from now on. Raises `UnsupportedError`."""
        return Printk(self._open())

    def begin(self) -> None:
        """Begins a test: its report will not have what was printed before."""
        if self._log is not None:
            self._log.drain()
            self._reported = len(self._log.lines)

    def sections(self) -> list[tuple[str, str]]:
        """Returns title and text of each section for a report."""
        found = []
        if self._log is not None:
            self._log.drain()
            lines = self._log.lines[self._reported :]
            self._reported = len(self._log.lines)
            if lines:
                found.append(("Captured bpf_printk", "\n".join(f"{x.comm}-{x.pid}: {x}" for x in lines)))
        for program in self._programs:
            with contextlib.suppress(BpfError):  # closed, or a kernel without streams
                streams = {"stdout": program.stdout, "stderr": program.stderr}
                found += [(f"Captured {n} of {program}", text) for n, text in streams.items() if text]
        return found + [section for sections in self._others for section in sections()]

    def close(self) -> None:
        """Stops listening. Safe to call again."""
        if self._log is not None:
            self._log.close()

    def _open(self) -> PrintkLog:
        if self._log is None:
            self._log = PrintkLog()
        return self._log
