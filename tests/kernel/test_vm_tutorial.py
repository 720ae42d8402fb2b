"""Runs the commands of the tutorial and of the how-to pages, and compares what they print."""

import os
import re
from pathlib import Path

import pytest
from console import missing, run_command, run_commands, steps

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "tutorial.md"
HOWTO = [page for page in sorted(DOCS.rglob("*.md")) if page != PAGE and steps(page)]
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
_FILE = re.compile(r"^```\w+\n(?://|#|--) file: (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_what_is_missing() -> None:
    assert missing(["a", "…", "c … e"], "a\nb\nc  d e\n") is None
    assert missing(["a", "c"], "c\na\n") == 1


def test_what_is_missing_where_numbers_may_differ() -> None:
    assert (
        missing(
            ["===== 2 of 1,024 at 0x1f: … ====", "x 3"], "= 17 of 3 at 0xff: a b =\nx 3.5\n", loosely=True
        )
        is None
    )
    for expected, printed in (
        ("map_2 5", "map_3 5"),
        ("1 update", "1 updates"),
        ("a 5", "a b"),
        ("ab", "a b"),
    ):
        assert missing(["1", expected], f"2\n{printed}\n", loosely=True) == 1


def test_only_downloads_are_not_run() -> None:
    (shell,) = re.findall(r"^```shell\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [line.split()[:2] for line in shell.splitlines()] == [
        ["sudo", "apt-get"],
        ["python3", "-m"],
        [".", ".venv/bin/activate"],
        ["pip", "install"],
        ["bpfmaps", "doctor"],
        ["bpfmaps", "kernels"],
    ]


def test_the_commands_print_what_the_page_says(tmp_path) -> None:
    run_commands(PAGE, tmp_path)


# What differs on a machine with tracepoints or KVM, which the README's machine has not.
_OF_THE_MACHINE = re.compile(r"SKIPPED|1s|lacks|features missing|skipped in|^bpfmaps: guests|emulated")

_RELEASES = re.compile(r"(?<=kernels host )\(\S+\)|(?<=vmlinux\.h of ).+(?=, the newest)")


def test_the_run_that_the_readme_shows(tmp_path) -> None:
    text = (DOCS.parent / "README.md").read_text()
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf/opens.bpf.c").write_text(blocks["c"])
    (tmp_path / "test_opens.py").write_text(blocks["python"])
    command, *lines = blocks["console"].removeprefix("$ ").splitlines()
    done = run_command(command, tmp_path)
    assert done.returncode == 0, done.stdout
    said = _RELEASES.sub("…", done.stdout)
    wanted = [_RELEASES.sub("…", line) for line in lines]
    if "1 skipped" not in said or "emulated)" not in said:
        wanted = [line for line in wanted if not _OF_THE_MACHINE.search(line)]
    absent = missing(wanted, said, loosely=True)
    assert absent is None, f"README.md does not print: {wanted[absent]}\nbut:\n{said}"


@pytest.mark.parametrize("page", HOWTO, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
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
