"""Runs the blocks of docs/maps and of the pages in docs. Each page is a class, whose marks are the page's."""

from pathlib import Path

from manual_pages import DOCS, MAPS, blocks, run_python


def class_of(page: Path) -> type:
    """Returns a class with the tests of a page, which have no fixtures of their own."""
    names = run_python(page)
    members = {name: staticmethod(made) for name, made in names.items() if callable(made)}
    return type(page.stem, (), {**members, "PAGE": page, "pytestmark": names.get("pytestmark", [])})


RUN = [
    page
    for page in sorted([*DOCS.glob("*.md"), *MAPS.glob("*.md")])
    if "python" in {block.language for block in blocks(page)}
]
globals().update({f"Test_{page.stem.replace('-', '_')}": class_of(page) for page in RUN})
