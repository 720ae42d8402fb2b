"""Runs the blocks of docs/maps. Each page is a class, whose marks are those of the page."""

from pathlib import Path

from manual_pages import MAPS, run_python


def class_of(page: Path) -> type:
    """Returns a class with the tests and fixtures of a page."""
    names = run_python(page)
    members = {name: staticmethod(made) for name, made in names.items() if callable(made)}
    return type(page.stem, (), {**members, "PAGE": page, "pytestmark": names.get("pytestmark", [])})


PAGES = sorted(MAPS.glob("*.md"))
globals().update({f"Test_{page.stem.replace('-', '_')}": class_of(page) for page in PAGES})
