"""Tests what bash offers for a command line of `bpfmaps`, and that its manual page has every option."""

import os
import re
import subprocess
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_files import RELEASE, bzimage

from pytest_bpfmaps.cli import parser
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

BIN = Path(sys.executable).parent
PAGE = Path(__file__).parents[2] / "docs/bpfmaps.1"
ASK = """
eval "$(register-python-argcomplete bpfmaps)"
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<< "$1"
case $1 in *' ') COMP_WORDS+=('') ;; esac
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_python_argcomplete bpfmaps
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(line: str) -> set[str]:
    pytest.importorskip(
        "argcomplete", reason="argcomplete is missing: pip install 'pytest-bpfmaps[completion]'"
    )
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", line],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return {word.strip() for word in done.stdout.splitlines()}


def test_commands_and_options_are_offered():
    assert offered("bpfmaps do") == {"docs", "doctor"}
    assert offered("bpfmaps doctor --j") == {"--json"}


def test_addresses_and_pages_are_offered():
    assert offered("bpfmaps docs no-cl") == {"no-clang"}
    assert "howto/xdp" in offered("bpfmaps docs howto/")


def test_kernels_are_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bzImage").write_bytes(bzimage())
    name = Catalogue().add(tmp_path / "bzImage").name
    assert RELEASE.startswith(name)
    assert name in offered("bpfmaps exec ")
    assert name in offered("bpfmaps kernels remove ")


def options(of: ArgumentParser) -> Iterator[str]:
    for action in of._actions:
        if action.help != SUPPRESS:
            yield from action.option_strings
        if action.choices and not action.option_strings and isinstance(action.choices, dict):
            for name, below in action.choices.items():
                yield name
                yield from options(below)


def test_the_manual_page_has_every_command_and_option():
    text = re.sub(r"\\f[BIRP]|\\[,/]", "", PAGE.read_text().replace("\\-", "-"))
    found = set(options(parser())) - {"--help"}  # each command has -h, --help
    assert {"docs", "kernels", "fetch", "--lock-file"} <= found
    for each in found:
        assert re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", text), f"{each}: run ci/man-page"
    of_pytest = set(re.findall(r"--bpf-[\w-]+", text))
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) <= found | of_pytest
