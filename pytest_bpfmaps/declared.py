"""Lines of the C source that say what the kernel refused, where the kernel itself tells no line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .btf.lines import SourceLine, source_lines

_MOST = 1 << 20  # bytes of a source


def line_of_map(path: Path, name: str) -> str:
    """Where a map is declared, ``file.bpf.c:7: } counts SEC(".maps");``; empty when that is not found."""
    return _line_with(path, rf'\b{re.escape(name)}\b[^;]*SEC\("\.?maps"\)')


def line_of_program(path: Path, name: str) -> str:
    """Where a program begins."""
    return _line_with(path, rf"\b{re.escape(name)}\s*[(,]")


def line_of_section(path: Path, section: str) -> str:
    """Where a program of that section is declared."""
    return _line_with(path, rf'SEC\("{re.escape(section)}"\)')


def line_of_call(path: Path, name: str) -> str:
    """Where a function is called first, or else declared."""
    call = rf"\b{re.escape(name)}\s*\("
    return _line_with(path, rf"^(?!\s*extern\b).*{call}") or _line_with(path, call)


def use_of(path: Path, section: str, name: str, line: int) -> SourceLine | None:
    """The record of a section that has `name` in its text and is closest to a line, rather behind it."""
    word = re.compile(rf"\b{re.escape(name)}\b")
    fits = [r for r in source_lines(path) if r.section == section and word.search(r.text)]
    return min(fits, key=lambda r: (r.line < line, abs(r.line - line)), default=None)


def _line_with(path: Path, pattern: str) -> str:
    wanted = re.compile(pattern)
    for file, number, text in _lines(path):
        if wanted.search(text):
            return f"{file}:{number}: {text.strip()}"
    return ""


def _lines(path: Path) -> Iterator[tuple[str, int, str]]:
    """The lines of the object's own sources; none where they are not at hand any more."""
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
            yield file.name, number, line
