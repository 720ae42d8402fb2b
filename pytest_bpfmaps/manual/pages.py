"""Finds the pages of the manual and the gallery, which a wheel and a checkout keep in different places."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pytest_bpfmaps.manual.addresses import ADDRESSES
from pytest_bpfmaps.manual.code_messages import PACKAGE, address_of_explanations, explanations, messages

_INSTALLED = Path(__file__).parent
_ADDRESSES = sorted({each for of_class in ADDRESSES.values() for each in of_class.values()})

REFERENCE = {
    "reference/api": "Python API",
    "reference/commands": "Commands",
    "reference/errors": "Errors",
    "reference/markers-and-fixtures": "Markers and fixtures",
    "reference/options": "Options and configuration",
}
"""The titles of the pages that are made from the code, by the pages' names."""


def pages_folder() -> Path:
    """Returns the folder of the manual's pages, which are Markdown."""
    installed = _INSTALLED / "pages"
    return installed if installed.is_dir() else PACKAGE.parent / "docs"


def gallery_folders() -> tuple[Path, Path]:
    """Returns the folder of the gallery's programs, and that of their tests."""
    installed = _INSTALLED / "gallery"
    if installed.is_dir():
        return installed / "bpf", installed / "tests"
    return PACKAGE.parent / "bpf", PACKAGE.parent / "tests" / "gallery"


def titles() -> dict[str, str]:
    """Returns the title of each page, by its name: ``howto/xdp``."""
    folder = pages_folder()
    found = {}
    for page in sorted(folder.rglob("*.md")):
        name = str(page.relative_to(folder).with_suffix(""))
        first = next((line for line in page.read_text().splitlines() if line.startswith("# ")), f"# {name}")
        found[name] = first[2:]
    return dict(sorted((found | REFERENCE).items()))


def names() -> list[str]:
    """Returns all that `text` knows: the names of pages, and the addresses of errors."""
    return [*titles(), *_ADDRESSES]


def text(name: str) -> str:
    """Returns a page, or the entry of an error, as Markdown. Raises KeyError where there is none."""
    if name in _ADDRESSES:
        entry = entries()[name]
        return "\n".join([f"# {name}", entry, *messages_of(name)]) + "\n"
    if name in REFERENCE:
        return _made_from_code(name.removeprefix("reference/"))
    if name in titles():
        return (pages_folder() / f"{name}.md").read_text()
    raise KeyError(name)


def _made_from_code(name: str) -> str:
    """Returns a page of the reference. Another process makes it from modules that stand above this one."""
    command = [sys.executable, "-m", "pytest_bpfmaps.reference", name]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def entries() -> dict[str, str]:
    """Returns what is written about each kind of error, by its address."""
    return {address: entry for _, address, entry in _entries()}


def pages_of_entries() -> dict[str, str]:
    """Returns the name of the page that has the entry, by its address."""
    return {address: f"errors/{page}" for page, address, _ in _entries()}


def _entries() -> Iterator[tuple[str, str, str]]:
    for page in sorted((pages_folder() / "errors").glob("*.md")):
        for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
            address, _, entry = part.partition("\n")
            yield page.stem, address.strip(), entry


def messages_of(address: str) -> Iterator[str]:
    """Yields what the code says in errors of this address: lines of Markdown.

    ``…`` stands for what differs from case to case.
    """
    kinds = [kind for kind, of_class in ADDRESSES.items() if address in of_class.values()]
    said: dict[tuple[str, str], None] = {}
    for kind, what, why, fix in messages(kinds):
        fitting = [beginning for beginning in ADDRESSES[kind] if what.startswith(beginning)]
        if what and ADDRESSES[kind][max(fitting, key=len)] == address:
            said[f"{what}: {why}" if why else what, fix] = None
    if said:
        yield from ("The messages, where `…` stands for what differs:", "")
        yield from (_line(*each) for each in said)
        yield ""
    files = {file for file in explanations() if address_of_explanations(file) == address}
    reasons = sorted({each for file in files for each in explanations()[file]})
    if reasons:
        yield from ("The reasons that the message gives, with what to do:", "")
        yield from (_line(*each) for each in reasons)
        yield ""


def _line(what: str, fix: str) -> str:
    return f"- {_code(what)}" + (f" → {_code(fix)}" if fix else "")


def _code(words: str) -> str:
    marks = "``" if "`" in words else "`"
    space = " " if marks == "``" else ""
    return f"{marks}{space}{words}{space}{marks}"
