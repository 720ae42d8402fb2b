"""Runs the commands of the tutorial and of the how-to pages, and compares what they print."""

import os
import re
from pathlib import Path

import pytest
from console import missing, run_commands, steps

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "tutorial.md"
HOWTO = [page for page in sorted(DOCS.rglob("*.md")) if page != PAGE and steps(page)]
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
_FILE = re.compile(r"^```\w+\n(?://|#|--) file: (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_what_is_missing() -> None:
    assert missing(["a", "…", "c … e"], "a\nb\nc  d e\n") is None
    assert missing(["a", "c"], "c\na\n") == "c"


def test_only_downloads_are_not_run() -> None:
    (shell,) = re.findall(r"^```shell\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [line.split()[:2] for line in shell.splitlines()] == [
        ["pip", "install"],
        ["bpfmaps", "doctor"],
        ["bpfmaps", "kernels"],
    ]


def test_the_commands_print_what_the_page_says(tmp_path) -> None:
    run_commands(PAGE, tmp_path)


@pytest.mark.parametrize("page", HOWTO, ids=lambda page: page.stem)
def test_the_commands_of_a_howto_print_what_it_says(page, tmp_path) -> None:
    for name, text in _FILE.findall(page.read_text()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    without_root = page.stem == "without-root" and os.geteuid() == 0
    run_commands(page, tmp_path, NO_CAPABILITIES if without_root else ())


def test_a_command_that_prints_something_else_fails(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```console\n$ echo no\nyes\n```\n")
    with pytest.raises(pytest.fail.Exception, match=r"page\.md:4: \$ echo no\ndid not print: yes\nbut:\nno"):
        run_commands(page, tmp_path)
