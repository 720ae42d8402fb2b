"""Tests commands and settings that the pages show, and that no test runs: each of them would be accepted.

tests/kernel/test_vm_tutorial.py runs the commands of `console` blocks.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from manual_pages import DOCS, Block, all_pages, blocks, name_of

from pytest_bpfmaps.cli import parser

ROOT = DOCS.parent
PAGES = [*all_pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# What gets or makes something outside of this project.
_OTHERS = {"pip", "apt-get", "git", "source", ".", "register-python-argcomplete", "eval", "setpriv"}
_OTHERS |= {"dpkg-deb", "pre-commit", "sphinx-build", "while", "done", "read"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]+=")
_FOREIGN = re.compile(r"--benchmark-")  # options of plugins that may be missing


@pytest.fixture(scope="module")
def options() -> set[str]:
    """The options that pytest takes here."""
    command = [sys.executable, "-m", "pytest", "--help", "-p", "bpfmaps", "-p", "no:hypothesispytest"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", said))


def simple_commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the words of each command of a shell's text, without assignments, and the number of its line."""
    joined = re.sub(r"\\\n", lambda _: "\\ \x00", text).replace("\\ \x00", " ")
    for number, line in enumerate(joined.splitlines()):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|;&<>"):
                if words:
                    yield number, words
                words = []
            elif words or not (_ASSIGNMENT.match(word) or word == "do"):
                words.append(word)


def refusal(words: list[str], options: set[str]) -> str | None:
    """Returns why a command would be refused."""
    program, *arguments = words[1:] if words[0] == "sudo" else words
    if program in _OTHERS or arguments[:1] == ["-m"]:
        return None
    if program == "bpfmaps":
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
            parser().parse_args(arguments)
            return None
        return said.getvalue()
    if program == "pytest":
        used = {a.partition("=")[0] for a in arguments if a.startswith("-")}
        unknown = {a for a in used if a not in options and a[:2] not in options and not _FOREIGN.match(a)}
        return f"pytest has no option {unknown}" if unknown else None
    if program.startswith("ci/"):
        return None if (ROOT / program).is_file() else "there is no such file"
    return None if program == "/dev/null" else "nobody says what this command is"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_command_would_be_accepted(page, options):
    for block in blocks(page):
        if block.language == "shell":
            found = faults(block, options)
            assert not found, "\n".join(f"{page}:{each}" for each in found)


def faults(block: Block, options: set[str]) -> list[str]:
    """Returns the commands of a block that would be refused, with line and reason."""
    found = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    lines = [f"{block.line}: {found.stderr}"] if found.returncode else []
    for number, words in simple_commands(block.text):
        why = refusal(words, options)
        if why:
            lines.append(f"{block.line + number}: {shlex.join(words)}: {why}")
    return lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pytest --bpf-kernels=6.1", "4: pytest --bpf-kernels=6.1: pytest has no option"),
        (
            "bpfmaps kernels fetch x\nSIZE=1 bpfmaps kernel list",
            "5: bpfmaps kernel list: (?s:.*)invalid choice",
        ),
        ("bpfmaps vm list --jsn", "unrecognized arguments"),
        ("ci/no-such-script", "there is no such file"),
        ("pytest 'x", "4: bash: "),
    ],
)
def test_a_command_that_would_be_refused(options, text, said):
    with contextlib.suppress(ValueError):  # a quotation without an end
        assert re.search(said, "\n".join(faults(Block("shell", text, 4), options)))


def settings() -> list[tuple[Path, Block]]:
    return [
        (page, block)
        for page in PAGES
        for block in blocks(page)
        if block.language == "toml" and "[tool.pytest]" in block.text
    ]


@pytest.mark.parametrize(
    ("page", "block"), settings(), ids=lambda each: name_of(each) if isinstance(each, Path) else each.line
)
def test_pytest_takes_the_settings(page, block, tmp_path):
    assert accepts(block, tmp_path) is None, f"{page}:{block.line}"


def accepts(block: Block, folder: Path) -> str | None:
    """Returns why pytest refuses settings."""
    tomllib.loads(block.text)
    (folder / "pyproject.toml").write_text(block.text)
    command = [sys.executable, "-m", "pytest", "-p", "bpfmaps", "-p", "no:hypothesispytest"]
    command += ["-c", "pyproject.toml", "--rootdir=.", "--collect-only", "-q", "--strict-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return None if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED else done.stdout + done.stderr


@pytest.mark.parametrize(
    "text", ["bpf_portabel = true", 'bpf_collect = "{"', "bpf_allow_kernel_warnings = ['x']"]
)
def test_settings_that_pytest_refuses(text, tmp_path):
    assert accepts(Block("toml", f"[tool.pytest]\n{text}\n", 1), tmp_path)
