"""Compares what a run prints with the block of the manual that shows it.

A block `output run` shows what some run prints. The test that makes such a run calls `shows`. A test in
tests/manual/test_pages.py asks whether each of these blocks has such a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from console import missing

DOCS = Path(__file__).parents[1] / "docs"
_OUTPUT = re.compile(r"^```output run\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Yields the number of the first line and the text of each block `output run`."""
    text = page.read_text()
    for found in _OUTPUT.finditer(text):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


def shows(page: str, words: str, printed: str) -> None:
    """Fails if a page shows something that a run did not print.

    `page` is a path below docs. `words` are in the block, and in no other block of the page. The lines of the
    block must have been printed, in this order; others may stand between them. Numbers may differ, and `…`
    stands for any text.
    """
    found = [(line, text) for line, text in shown_blocks(DOCS / page) if words in text]
    assert len(found) == 1, f"docs/{page}: {len(found)} blocks have these words: {words}"
    first, text = found[0]
    lines = text.splitlines()
    absent = missing(lines, printed, loosely=True)
    if absent is not None:
        pytest.fail(f"docs/{page}:{first + absent}: nothing printed: {lines[absent]}\nbut:\n{printed}")
