"""`bpfmaps docs`: prints pages of the manual, the entry of an error, and where the gallery is."""

from __future__ import annotations

import argparse
import pydoc
import sys
from typing import Any

from pytest_bpfmaps.commands.completion import offer


def register(commands: Any) -> None:
    """Adds ``docs`` to argparse's `commands`."""
    docs = commands.add_parser(
        "docs",
        help="the manual, without a network: its pages, each kind of error, the gallery of programs",
        description="Without NAME it lists the pages, and says in which folders the manual and the gallery "
        "are. The pages are Markdown.",
    )
    name = docs.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a page (howto/xdp), the address of an error (no-clang), or 'errors', which lists all addresses",
    )
    offer(name, _names)
    docs.set_defaults(run=_docs)


def _names() -> list[str]:
    from pytest_bpfmaps.manual import pages

    return [*pages.names(), "errors", "gallery"]


def _docs(arguments: argparse.Namespace) -> None:
    from pytest_bpfmaps.errors import NameLookupError, closest
    from pytest_bpfmaps.manual import pages

    name = (arguments.name or "").strip("/").removesuffix(".md").removeprefix("docs/")
    if not name:
        _show(_contents())
    elif name == "errors":
        _show(_errors())
    elif name == "gallery":
        _show(_gallery())
    else:
        try:
            _show(pages.text(name))
        except KeyError:
            raise NameLookupError("no page", on=repr(name), fix=closest(name, _names())) from None


def _contents() -> str:
    from pytest_bpfmaps.manual import pages

    programs, tests = pages.gallery_folders()
    titles = pages.titles()
    width = max(map(len, titles))
    return "\n".join(
        [
            f"manual:   {pages.pages_folder()}",
            f"programs: {programs}",
            f"tests:    {tests}",
            "",
            "bpfmaps docs NAME prints a page:",
            *(f"  {name:{width}}  {title}" for name, title in titles.items()),
            "",
            "bpfmaps docs errors lists the kinds of errors; bpfmaps docs gallery lists the programs.",
            "",
        ]
    )


def _errors() -> str:
    from pytest_bpfmaps.manual import pages

    entries = pages.entries()
    width = max(map(len, entries))
    firsts = {name: " ".join(entry.strip().split("\n\n")[0].split()) for name, entry in entries.items()}
    return "".join(f"{name:{width}}  {first}\n" for name, first in firsts.items())


def _gallery() -> str:
    from pytest_bpfmaps.manual import pages

    programs, tests = pages.gallery_folders()
    files = [*sorted(programs.glob("*.bpf.c")), *sorted(tests.glob("test_*.py"))]
    return "".join(f"{file}\n" for file in files)


def _show(text: str) -> None:
    if sys.stdout.isatty():
        pydoc.pager(text)
    else:
        print(text, end="")
