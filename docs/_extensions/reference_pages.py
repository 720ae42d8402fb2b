"""Writes the pages of docs/reference from the code, before Sphinx reads the sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_bpfmaps import reference
from pytest_bpfmaps.manual.pages import messages_of


def setup(app: Any) -> dict[str, Any]:
    """Writes the pages. Sphinx calls this."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for name in reference.PAGES:
        text = "\n".join(reference.classes(_class)) + "\n" if name == "api" else reference.page(name)
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
    app.connect("source-read", add_messages)
    return {"parallel_read_safe": True}


def _class(made: type) -> Iterator[str]:
    """Has Sphinx show a class, with links."""
    directive = f".. autoclass:: {made.__module__}.{made.__qualname__}"
    yield from ("```{eval-rst}", directive, "   :members:", "   :exclude-members: __init__", "```", "")


def add_messages(app: Any, name: str, source: list[str]) -> None:
    """Adds to each entry of an error what the code says. Sphinx calls this for each page that it reads."""
    if name.startswith("errors/"):
        head, *parts = re.split(r"^## ", source[0], flags=re.MULTILINE)
        entries = [[part.rstrip(), "", *messages_of(part.partition("\n")[0].strip())] for part in parts]
        source[0] = head + "".join("## " + "\n".join(lines) + "\n" for lines in entries)
