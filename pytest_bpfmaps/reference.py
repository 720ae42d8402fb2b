"""Makes the reference pages of the manual from what pytest, argparse and the modules themselves say.

``python -m pytest_bpfmaps.reference options`` prints a page. ``bpfmaps docs reference/options`` runs that
command, and Sphinx imports this module. It imports the plugin and the command, so it is on the top floor.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest_bpfmaps
from pytest_bpfmaps import cli, errors, plugin
from pytest_bpfmaps.manual.addresses import ADDRESSES
from pytest_bpfmaps.manual.pages import REFERENCE, pages_of_entries, titles
from pytest_bpfmaps.paths import PACKAGE

SHOWN = "Made from the code."
_TRIGGERS = ("NetNsFactory", "NetNs", "Cgroup", "ProcessFactory", "PausedProcess")
CLASSES = {
    "The fixtures' objects": ["Bpf", "RunningKernel", *_TRIGGERS],
    "Objects and programs": ["OpenedObject", "LoadedObject", "Program", "RunResult", "Link", "LoaderProcess"],
    "Maps and events": ["Map", "Snapshot", "Record", "Capture"],
}


def page(name: str) -> str:
    """Returns a page as Markdown. `name` is a key of `PAGES`. Raises KeyError for another name."""
    return "\n".join(PAGES[name]()) + "\n"


def heading(name: str) -> list[str]:
    """Returns the first lines of a page."""
    return [f"# {REFERENCE[f'reference/{name}']}", ""]


# options and ini keys


class Recorder:
    """Takes the place of pytest's parser and plugin manager, while the plugin registers its options."""

    def __init__(self) -> None:
        self.options: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[tuple[str, str, str, Any]] = []

    def getgroup(self, *_: str) -> Recorder:
        return self

    def addoption(self, *names: str, **given: Any) -> None:
        self.options.append((", ".join(names), given))

    def addini(self, name: str, help: str, type: str | None = None, default: Any = None) -> None:
        self.keys.append((name, help, type or "string", default))

    def register(self, module: Any, _name: str) -> None:
        if hasattr(module, "pytest_addoption"):
            module.pytest_addoption(self)


def options() -> Iterator[str]:
    """Yields the lines of the page of options and ini keys."""
    recorder = Recorder()
    plugin.pytest_addoption(recorder, recorder)  # type: ignore[arg-type]
    yield from (*heading("options"), SHOWN, "", "## Options of pytest", "")
    for names, given in sorted(recorder.options):
        if given.get("help") == argparse.SUPPRESS:
            continue
        yield f"`{names}{_operand(given)}`"
        yield f": {_plain(given.get('help', ''))}"
        yield ""
    yield from (
        "## Keys of the configuration file",
        "",
        "They stand below `[tool.pytest]` in `pyproject.toml`.",
        "",
    )
    for name, text, kind, default in sorted(recorder.keys):
        shown = "" if default in ("", None, []) else f", default `{default!r}`"
        yield f"`{name}` ({kind}{shown})"
        yield f": {_plain(text)}"
        yield ""


def _operand(given: dict[str, Any]) -> str:
    if given.get("action") in ("store_true", "store_false"):
        return ""
    if given.get("choices"):
        return "=" + "|".join(given["choices"])
    return f"={given['metavar']}" if given.get("metavar") else ""


def _plain(text: str) -> str:
    """Returns a help text as Markdown, in which no character of the text counts as markup."""
    return re.sub(r"([*_<>|\[\]])", r"\\\1", " ".join(text.replace("%%", "%").split()))


# commands


def commands() -> Iterator[str]:
    """Yields the lines of the page of the command `bpfmaps`: what `--help` prints for each subcommand."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    yield from (*heading("commands"), "What `bpfmaps … --help` prints.", "")
    for name, parser in _parsers("bpfmaps", cli.parser()):
        yield from (f"{'##' if name.count(' ') < 2 else '###'} {name}", "", "```text")
        yield from parser.format_help().rstrip().splitlines()
        yield from ("```", "")


def _parsers(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each, below in action.choices.items():
                yield from _parsers(f"{name} {each}", below)


# markers and fixtures


def markers_and_fixtures() -> Iterator[str]:
    """Yields the lines of the page of this plugin's markers and fixtures, as pytest prints them."""
    yield from (*heading("markers-and-fixtures"), SHOWN, "", "## Markers", "")
    for line in _pytest("--markers").splitlines():
        found = re.match(r"@pytest\.mark\.(bpf_\w+)(\([^)]*\))?: (.*)", line)
        if found:
            yield from (f"`@pytest.mark.{found[1]}{found[2] or ''}`", f": {_plain(found[3])}", "")
    yield from ("## Fixtures", "")
    text = _pytest("--fixtures", "-v")
    for name, scope, doc in re.findall(
        r"^(bpf\w*)( \[\w+ scope\])? -- \S*fixtures\.py:\d+\n((?:    .*\n|\n)+)", text, re.MULTILINE
    ):
        yield f"`{name}`{_plain(scope)}"
        yield ": " + " ".join(doc.split()).replace("``", "`")
        yield ""


def _pytest(*arguments: str) -> str:
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "100"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-p", "bpfmaps", "-c", os.devnull, "--rootdir=/", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=PACKAGE)
    return done.stdout


# classes


def classes(show: Callable[[type], Iterator[str]]) -> Iterator[str]:
    """Yields the lines of the page of the public classes. `show` yields the lines of one class."""
    yield from (*heading("api"), "All names are in the package: `from pytest_bpfmaps import Bpf`.", "")
    for title, names in CLASSES.items():
        yield from (f"## {title}", "")
        for name in names:
            yield from show(getattr(pytest_bpfmaps, name))
    yield from ("## Flags and return values", "")
    numbers = [n for n in pytest_bpfmaps.__all__ if isinstance(getattr(pytest_bpfmaps, n), int)]
    for name in numbers:
        yield f"- `{name}` = {int(getattr(pytest_bpfmaps, name))}"


def api() -> Iterator[str]:
    """Yields the lines of the page of the public classes, as Markdown."""
    return classes(_class)


def _class(made: type) -> Iterator[str]:
    yield from (f"### {made.__name__}", "", *(inspect.getdoc(made) or "").splitlines(), "")
    for name, member in vars(made).items():
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        read = plain.fget if isinstance(plain, property) else plain
        doc = inspect.getdoc(read)
        if name.startswith("_") or not doc or not callable(read):
            continue
        shown = "" if isinstance(plain, property) else _signature(read)
        yield from (f"`{made.__name__}.{name}{shown}`", "", *doc.splitlines(), "")


def _signature(function: Callable[..., Any]) -> str:
    """Returns a signature as it stands in the source, without `self`."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))
    return re.sub(r"^\(self(?:, )?", "(", text)


# errors


def error_page() -> Iterator[str]:
    """Yields the lines of the page of every exception and warning, with its entries in the manual."""
    yield from heading("errors")
    yield "A message says what was tried, on what, why it failed, and after an arrow what to do. Its last"
    yield "line names an entry of this manual: `see: bpfmaps docs no-clang`. The command prints that"
    yield "entry, and needs no network. The entries are on these pages:"
    yield ""
    for name, title in titles().items():
        if name.startswith("errors/"):
            yield f"- [{title}](../{name}.md)"
    yield ""
    yield "Each class below is also the builtin exceptions that it names."
    yield ""
    pages = pages_of_entries()
    for name, made in inspect.getmembers(errors, inspect.isclass):
        if not issubclass(made, Exception) or made.__module__ != errors.__name__:
            continue
        yield from (f"({slug(name)})=", f"## {name}", "")
        general = (Exception, BaseException, object)
        builtin = [b.__name__ for b in made.__mro__ if b.__module__ == "builtins" and b not in general]
        parents = [b.__name__ for b in made.__bases__ if b.__module__ == errors.__name__]
        yield " ".join((inspect.getdoc(made) or "").split("\n\n")[0].split()).replace("``", "`")
        yield ""
        kinds = [f"[{p}](#{slug(p)})" for p in parents] + [f"`{b}`" for b in builtin]
        yield f"It is a {', '.join(kinds)}." if kinds else ""
        yield ""
        known = sorted(set(ADDRESSES.get(name, {}).values()))
        entries = ", ".join(f"[{each}](../{pages[each]}.md#{each})" for each in known)
        yield f"Entries: {entries}." if entries else ""
        yield ""


def slug(name: str) -> str:
    """Returns the address of a class on the page: ``map-key-error``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "options": options,
    "commands": commands,
    "markers-and-fixtures": markers_and_fixtures,
    "api": api,
    "errors": error_page,
}


if __name__ == "__main__":
    print(page(sys.argv[1]), end="")
