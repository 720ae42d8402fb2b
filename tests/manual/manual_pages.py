"""The blocks of the manual's pages, as files and as Python modules.

A Python block keeps its place: a traceback names the page and the line. A C block begins with a comment that
names its file. Its lines have the numbers that they have in the page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

HOWTO = Path(__file__).parents[2] / "docs/howto"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"// file: (\S+)\n")


class Block(NamedTuple):
    """A block of a page; `line` is the number of its first line."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks that have a language."""
    text = page.read_text()
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in _BLOCK.finditer(text)]


def run_python(page: Path) -> dict[str, Any]:
    """Runs the Python blocks one after the other in one module, and returns its names."""
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
    return {name: made for name, made in names.items() if not name.startswith("__")}


def write_sources(page: Path, folder: Path) -> None:
    """Writes the C blocks into a folder."""
    for block in blocks(page):
        if block.language == "c":
            name = _FILE.match(block.text)
            assert name, f"{page}:{block.line}: a C block must begin with: // file: NAME.bpf.c"
            (folder / Path(name[1]).name).write_text("\n" * (block.line - 1) + block.text)
