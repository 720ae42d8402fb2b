"""The blocks of the manual's pages, as files and as Python modules.

A Python block keeps its place: a traceback names the page and the line. A C block begins with a comment that
names its file. Its lines have the numbers that they have in the page. A Python block that an `output` block
follows must fail, with that message. An assertion that fails shows its values, as in a file of tests.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pytest
from _pytest.assertion.rewrite import rewrite_asserts

DOCS = Path(__file__).parents[2] / "docs"
HOWTO = DOCS / "howto"
MAPS = DOCS / "maps"
_BLOCK = re.compile(r"^```(\w+(?: run)?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"// file: (\S+)\n")


class Block(NamedTuple):
    """A block of a page; `line` is the number of its first line."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks that have a language."""
    text = page.read_text()
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in _BLOCK.finditer(text)]


def all_pages() -> list[Path]:
    """Returns the pages that people write; those of docs/reference are made from the code."""
    return [page for page in sorted(DOCS.rglob("*.md")) if "reference" not in page.parts]


def name_of(page: object) -> str:
    """Returns the name of a page for a test's id: its path below docs."""
    return str(page).removeprefix(f"{DOCS}/").removesuffix(".md")


def run_python(page: Path) -> dict[str, Any]:
    """Runs the Python blocks one after the other in one module, and returns its names."""
    names: dict[str, Any] = {"__name__": page.stem}
    for block, after in pairwise([*blocks(page), Block("", "", 0)]):
        if block.language == "python":
            before = set(names)
            exec(_compiled(page, block), names)
            if after.language == "output":
                where = f"{page}:{after.line}"
                made = [name for name in set(names) - before if name.startswith("test_")]
                assert len(made) == 1, f"{where}: the block before it must have one test"
                names[made[0]] = _failing(names[made[0]], where, after.text)
    return {name: made for name, made in names.items() if not name.startswith("__")}


def _compiled(page: Path, block: Block) -> CodeType:
    text = "\n" * (block.line - 1) + block.text
    tree = ast.parse(text, str(page))
    rewrite_asserts(tree, text.encode(), str(page))
    return compile(tree, str(page), "exec")


def _failing(test: Callable[..., None], where: str, message: str) -> Callable[..., None]:
    """Returns a test that passes if another one fails with a message, in which `…` stands for any text.

    Pages show waits as they are on a real CPU.
    """

    @functools.wraps(test)
    def fails(*arguments: Any, **keywords: Any) -> None:
        with pytest.raises(Exception) as caught:
            test(*arguments, **keywords)
        said = " ".join(f"{caught.type.__name__}: {caught.value}".split())
        said = re.sub(r" \(as the CPU is emulated, \S+ s\)", "", said)
        pattern = ".*".join(map(re.escape, " ".join(message.split()).split("…")))
        assert re.fullmatch(pattern, said), f"{where}: the message is now:\n{said}"

    return fails


def write_sources(page: Path, folder: Path) -> None:
    """Writes the C blocks into a folder."""
    for block in blocks(page):
        if block.language == "c":
            name = FILE.match(block.text)
            assert name, f"{page}:{block.line}: a C block must begin with: // file: NAME.bpf.c"
            (folder / Path(name[1]).name).write_text("\n" * (block.line - 1) + block.text)
