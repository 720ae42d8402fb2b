"""Finds the C line that was refused, when the kernel does not name it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.btf.line_info import SourceLine, source_lines

_MOST = 1 << 20  # bytes of a source


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a source."""

    file: Path
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.number}: {self.text.strip()}"


def line_of_map(path: Path, name: str) -> str:
    """Returns where a map is declared, ``file.bpf.c:7: } counts SEC(".maps");``; empty if not found."""
    return _text(map_line(path, name))


def map_line(path: Path, name: str) -> Line | None:
    """Returns the line that declares a map, or a legacy one: ``struct bpf_map_def SEC("maps") x = {``."""
    word, section = rf"\b{re.escape(name)}\b", r'SEC\("\.?maps(?:/[^"]*)?"\)'
    return _find(path, rf"{word}[^;]*{section}|{section}[^;={{]*{word}|{word}\s*=\s*{{")


def variable_line(path: Path, name: str) -> Line | None:
    """Returns the line where a variable gets its first value."""
    return _find(path, rf"\b{re.escape(name)}\b[^;=]*=")


def section_line(path: Path, section: str) -> Line | None:
    """Returns the line where a program of that section is declared."""
    return _find(path, rf'SEC\("{re.escape(section)}"\)')


def line_of_program(path: Path, name: str) -> str:
    """Returns where a program begins; empty if not found."""
    return _text(program_line(path, name))


def program_line(path: Path, name: str) -> Line | None:
    """Returns the line with a program's name, and with its parameter or the macro that declares it."""
    return _find(path, rf"\b{re.escape(name)}\s*[(,]")


def line_of_section(path: Path, section: str) -> str:
    """Returns where a program of that section is declared; empty if not found."""
    return _text(section_line(path, section))


def line_of_call(path: Path, name: str) -> str:
    """Returns where a function is called first, or else declared; empty if not found."""
    call = rf"\b{re.escape(name)}\s*\("
    return _text(_find(path, rf"^(?!\s*extern\b).*{call}") or _find(path, call))


def format_line(path: Path, conversion: str) -> Line | None:
    """Returns the line that prints with a format that has `conversion`."""
    return _find(path, rf'print\w*\s*\([^"]*".*{re.escape(conversion)}')


def line_of_extern(path: Path, name: str) -> str:
    """Returns where the source declares a variable of the kernel; empty if not found."""
    return _text(_find(path, rf"\bextern\b.*\b{re.escape(name)}\b"))


def use_of(path: Path, section: str, name: str, line: int) -> SourceLine | None:
    """Returns the source line of a section that uses `name` and is closest to `line`.

    A line after `line` comes before any line in front of it.
    """
    word = re.compile(rf"\b{re.escape(name)}\b")
    fits = [r for r in source_lines(path) if r.section == section and word.search(r.text)]
    return min(fits, key=lambda r: (r.line < line, abs(r.line - line)), default=None)


def _text(line: Line | None) -> str:
    return "" if line is None else str(line)


def _find(path: Path, pattern: str) -> Line | None:
    wanted = re.compile(pattern)
    return next((line for line in _lines(path) if wanted.search(line.text)), None)


def _lines(path: Path) -> Iterator[Line]:
    """Yields the lines of the object's own sources; none if the files no longer exist."""
    for name in dict.fromkeys(r.file for r in source_lines(path)):
        file = Path(name)
        if file.suffix != ".c":
            continue
        try:
            with file.open(errors="replace") as opened:
                text = opened.read(_MOST)
        except OSError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield Line(file, number, line)
