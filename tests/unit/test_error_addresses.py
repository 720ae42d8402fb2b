"""Tests the addresses of errors: each error has one, each address has an entry, and no entry is stale."""

import ast
import pickle
import re
import subprocess
import sys
import traceback

import pytest

from pytest_bpfmaps import errors
from pytest_bpfmaps.cli import main, parser
from pytest_bpfmaps.errors import BpfError, CompileError, MapError, VmError
from pytest_bpfmaps.manual import pages
from pytest_bpfmaps.manual.addresses import ADDRESSES, address
from pytest_bpfmaps.manual.code_messages import (
    PACKAGE,
    address_of_explanations,
    explanations,
    messages,
)

USED = {each for of_class in ADDRESSES.values() for each in of_class.values()}
KINDS = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, BpfError) and each is not BpfError
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_class_has_an_address(kind):
    assert address(kind, "some message that nobody has written") in USED


def test_each_message_has_an_address():
    said = messages()
    assert len(said) > 300
    for each in said:
        kind = getattr(errors, each.kind, None)
        if kind is not None and each.what:
            assert address(kind, each.what) in USED, each


def test_each_address_has_one_entry_and_the_reverse():
    entries = list(pages.entries())
    assert sorted(entries) == sorted(USED)


def test_no_beginning_of_a_message_is_stale():
    texts = set()
    for file in PACKAGE.rglob("*.py"):
        if "manual" not in file.parts:
            nodes = ast.walk(ast.parse(file.read_text()))
            texts |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    for kind, of_class in ADDRESSES.items():
        for beginning in of_class:
            assert any(text.startswith(beginning) for text in texts), (kind, beginning)


def test_explanations_belong_to_an_address():
    found = explanations()
    assert sum(map(len, found.values())) > 200
    for file in found:
        assert address_of_explanations(file) in USED, file


@pytest.mark.parametrize("name", sorted(USED))
def test_an_entry_has_causes_with_remedies(name):
    entry = pages.entries()[name]
    meaning, _, causes = entry.strip().partition("\n\n- ")
    assert meaning.endswith((".", ":"))
    found = [each for each in ("- " + causes).split("\n- ") if each.strip()]
    assert found
    for cause in found:
        assert re.match(r"(?s)(- )?\S.* → .*\S", cause), cause


def test_entries_name_options_and_commands_that_exist():
    said = "".join(pages.entries().values())
    command = [sys.executable, "-m", "pytest", "-p", "bpfmaps", "--help"]
    helped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"--bpf-[\w-]+", said))
    assert len(options) > 8
    for option in options:
        assert re.search(rf"^ +{option}\b", helped, re.MULTILINE), option
    commands = next(action for action in parser()._actions if action.choices).choices
    used = re.findall(r"`bpfmaps (\w+)", said)
    assert len(used) > 8
    assert set(used) <= set(commands)


def test_the_address_is_the_last_line():
    error = MapError("cannot push 1", on="in events", why="it is full", fix="pop first", details="more")
    error.add_note("noted")
    last = "  see: bpfmaps docs map-operation-refused"
    for text in (error.full_text(), "".join(traceback.format_exception(error)).rstrip("\n")):
        assert text.splitlines()[-2:] == ["noted", last]
    assert error.full_text().startswith("cannot push 1 in events: it is full\n")
    assert str(error) == "cannot push 1 in events: it is full\nmore\n  -> pop first"
    copied = pickle.loads(pickle.dumps(error))
    assert copied.full_text().splitlines()[-1] == last


def test_the_longest_beginning_counts():
    assert address(VmError, "no kernel") == "no-such-kernel"
    assert address(VmError, "no kernel image in") == "unusable-kernel"
    assert address(CompileError, "cannot compile") == "cannot-compile"
    assert address(ValueError, "cannot compile") is None
    assert BpfError("of somebody else").full_text() == "of somebody else"


def test_pytest_shows_the_address_and_the_summary_begins_with_the_cause(pytester):
    pytester.makepyfile(
        test_x="""
        from pytest_bpfmaps.errors import MapError

        def test_refused():
            raise MapError("cannot push 1", on="in events", why="it is full", fix="pop first")
        """
    )
    done = pytester.runpytest_subprocess("-p", "bpfmaps", "-rf")
    lines = [line.removeprefix("E").strip() for line in done.outlines if line.startswith("E ")]
    assert lines[-1] == "see: bpfmaps docs map-operation-refused"
    done.stdout.fnmatch_lines(["FAILED test_x.py::test_refused - cannot push 1 in events: it is full"])


def test_the_command_prints_an_entry(capsys):
    assert main(["docs", "cannot-make-project"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# cannot-make-project\n")
    assert "→ `give another name, or move it away: mv …" in said


def test_the_command_prints_pages_and_folders(capsys):
    assert main(["docs"]) == 0
    said = capsys.readouterr().out
    programs, tests = pages.gallery_folders()
    assert str(programs) in said
    assert str(tests) in said
    assert re.search(r"^  howto/xdp +\S", said, re.MULTILINE)
    assert main(["docs", "docs/howto/xdp.md"]) == 0
    assert capsys.readouterr().out == (pages.pages_folder() / "howto/xdp.md").read_text()
    assert main(["docs", "gallery"]) == 0
    assert str(programs / "tickets.bpf.c") in capsys.readouterr().out
    assert main(["docs", "errors"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == USED


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("options", "`--bpf-kernel=NAME[,NAME...]`"),
        ("commands", "## bpfmaps verify"),
        ("markers-and-fixtures", "`bpf_netns`"),
        ("api", "`Map.update_elem(key: Any, value: Any, flags: int = 0) -> None`"),
        ("errors", "## VerifierError"),
    ],
)
def test_the_command_prints_pages_that_are_made_from_the_code(capfd, name, words):
    """An installed wheel has no file of them."""
    assert main(["docs", f"reference/{name}"]) == 0
    said = capfd.readouterr().out
    assert said.startswith(f"# {pages.REFERENCE[f'reference/{name}']}\n")
    assert words in said


def test_the_command_names_the_closest_page(capsys):
    assert main(["docs", "no-clan"]) == 1
    said = capsys.readouterr().err
    assert "no page 'no-clan'" in said
    assert "'no-clang'" in said
    assert said.splitlines()[-1] == "  see: bpfmaps docs no-such-name"
