"""Runs the blocks of docs/maps and of pages in docs. Each page is a class, whose marks are the page's."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from manual_pages import DOCS, MAPS, run_python

from pytest_bpfmaps import Bpf

# The Python of these pages is in pieces, which use a program or a map that the page does not show.
IN_PIECES = {
    "architecture",
    "attaching",
    "compiling",
    "cost",
    "kernel-warnings",
    "legacy-maps",
    "loaders",
    "loading",
    "maps",
    "tracing",
    "values",
    "virtual-machines",
}
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n|\n(?= {4}))+")
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def class_of(page: Path) -> type:
    """Returns a class with the tests of a page, which have no fixtures of their own."""
    names = run_python(page)
    members = {name: staticmethod(made) for name, made in names.items() if callable(made)}
    return type(page.stem, (), {**members, "PAGE": page, "pytestmark": names.get("pytestmark", [])})


def fragments(page: Path) -> Iterator[ast.Module]:
    """Yields the blocks of a page that are Python, whether they are fenced or indented."""
    text = page.read_text()
    yield from map(ast.parse, _PYTHON.findall(text))
    for block in _INDENTED.findall(text):
        try:
            yield ast.parse(textwrap.dedent(block))
        except SyntaxError:
            continue  # C, a shell's commands, or what is printed


WHOLE = [DOCS / f"{name}.md" for name in ("index", "pinning", "triggers", "expectations")]
RUN = sorted(MAPS.glob("*.md")) + WHOLE
globals().update({f"Test_{page.stem.replace('-', '_')}": class_of(page) for page in RUN})
OTHERS = [page for page in sorted(DOCS.glob("*.md")) if page not in RUN]


def uses_of_bpf(tree: ast.AST) -> set[str]:
    """Returns the names of what a block calls of the fixture `bpf`."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bpf"
    }


def is_code(tree: ast.AST) -> bool:
    """Whether a block is code, and not only names or settings that Python can parse, too."""
    code = (ast.FunctionDef, ast.With, ast.Assert, ast.For, ast.Call, ast.Subscript)
    return any(isinstance(node, code) for node in ast.walk(tree))


def test_each_page_with_python_is_run_or_is_known():
    assert {page.stem for page in OTHERS if any(map(is_code, fragments(page)))} == IN_PIECES


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.stem)
def test_a_fragment_uses_what_the_fixture_has(page):
    for tree in fragments(page):
        assert uses_of_bpf(tree) <= set(dir(Bpf)) | set(Bpf.__annotations__)
