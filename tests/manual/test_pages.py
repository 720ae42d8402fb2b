"""Tests that every block of the pages is run, and that a failing block names page and line."""

import ast
import io
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from manual_pages import DOCS, FILE, HOWTO, all_pages, blocks, name_of, run_python, write_sources
from shown_blocks import shown_blocks, shows

HERE = Path(__file__).parent
HOWTO_PAGES = sorted(HOWTO.glob("*.md"))
PAGES = all_pages()
# tests/kernel/test_vm_tutorial.py writes those that name a file, and runs the commands of `console`;
# test_page_commands.py looks at `shell` and `toml`
LANGUAGES = {"c", "python", "output", "output run", "yaml", "console", "shell", "bpftrace", "toml", "text"}


def test_each_page_with_a_program_or_a_test_is_run():
    written = {
        re.search(r'^PAGE = "(.*)"$', path.read_text(), re.MULTILINE) for path in HERE.glob("test_*.py")
    }
    run = {found[1] for found in written if found}
    assert run == {page.name for page in HOWTO_PAGES if {b.language for b in blocks(page)} & {"c", "python"}}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_is_of_a_language_that_is_checked(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES


_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A) {4}\S.*")


@pytest.mark.parametrize("page", [*PAGES, DOCS.parent / "README.md"], ids=name_of)
def test_each_block_has_a_language(page):
    text = page.read_text()
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    assert all(fences[::2]), "a block without a language"
    assert not any(fences[1::2])
    assert not _INDENTED.search(_FENCED.sub("", text)), "a block that is only indented"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_output_follows_python(page):
    languages = [block.language for block in blocks(page)]
    before = {first for first, second in pairwise(["", *languages]) if second == "output"}
    assert before <= {"python"}


# programs of other tools, a list of files, and a part of a program, which test_coverage_exclusions.py reads
LISTINGS = {
    "coverage",
    "howto/from-bats",
    "howto/from-bcc",
    "howto/from-cilium-ebpf",
    "howto/from-selftests",
    "artifacts",
}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_text_is_a_picture_or_a_listing(page):
    """What is printed is in a block `output run` or `console`: a test compares it with a real run."""
    found = [block for block in blocks(page) if block.language == "text"]
    if name_of(page) in LISTINGS:
        assert len(found) == 1
        return
    for block in found:
        assert re.search("[─-╿▀-▟▶▼◀▲]", block.text), f"{page}:{block.line}: nothing tests this text"


def calls_of_shows():
    """Returns the page and the words of each call `shows("page", "words", …)` in the tests."""
    found = []
    for path in (DOCS.parent / "tests").rglob("test_*.py"):
        text = path.read_text()
        if path.name != "test_pages.py" and re.search("import .*shows$", text, re.MULTILINE):
            calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
            of_shows = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "shows"]
            found += [tuple(map(ast.literal_eval, call.args[:2])) for call in of_shows if len(call.args) == 3]
    return found


SHOWN = calls_of_shows()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_run_prints_what_the_page_shows(page):
    words = [said for name, said in SHOWN if DOCS / name == page]
    for line, text in shown_blocks(page):
        assert [said for said in words if said in text], f"{page}:{line}: no test calls `shows` for this"


@pytest.mark.parametrize(("page", "words"), SHOWN)
def test_a_call_of_shows_names_one_block(page, words):
    assert len([line for line, text in shown_blocks(DOCS / page) if words in text]) == 1


def test_a_page_that_shows_what_is_not_printed():
    said = "debian:bookworm: reading the package lists of x"
    with pytest.raises(
        pytest.fail.Exception, match=r"docs/kernels\.md:\d+: nothing printed: debian:bookworm: get"
    ):
        shows("kernels.md", "getting linux-image", said)
    with pytest.raises(AssertionError, match=r"docs/kernels\.md: 0 blocks have these words: of no page"):
        shows("kernels.md", "of no page", said)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_program_is_used(page):
    """Another block compiles each C block, or a command does."""
    found = blocks(page)
    for block in found:
        if block.language == "c":
            name = Path(FILE.match(block.text)[1]).name
            others = "".join(each.text for each in found if each.language in {"python", "console"})
            everything = "bpf_collect" in page.read_text()
            assert name in others or everything, f"{page}:{block.line}: nothing uses {name}"


@pytest.mark.parametrize("page", [*PAGES, DOCS.parent / "README.md"], ids=name_of)
def test_additions_are_those_that_each_kernel_has(page):
    """clang 20 and later make another operation of `__sync_fetch_and_add`, which Linux 5.10 refuses."""
    assert not [block.line for block in blocks(page) if "__sync_" in block.text]


def commands(node: object) -> Iterator[str]:
    """Yields the commands of a CI job."""
    if isinstance(node, list):
        for element in node:
            yield from commands(element)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in {"run", "script"}:
                yield from [value] if isinstance(value, str) else value
            else:
                yield from commands(value)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_yaml_can_be_parsed(page):
    yaml = pytest.importorskip("yaml", reason="PyYAML is missing: pip install pyyaml")
    for block in blocks(page):
        if block.language == "yaml":
            text = io.StringIO("\n" * (block.line - 1) + block.text)
            text.name = str(page)  # a fault in it then names page and line
            for command in commands(yaml.safe_load(text)):
                subprocess.run(["bash", "-n"], input=command, text=True, check=True)


def test_a_failing_python_block_names_page_and_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\ndef test_it():\n    assert 1 == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run_python(page)["test_it"]()
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(page), 5)


def failing(tmp_path, body, output):
    """Returns the test of a page with a block that is to fail."""
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n```python\ndef test_it():\n    {body}\n```\n\n```output\n{output}\n```\n")
    return run_python(page)["test_it"]


def test_an_output_block_is_the_message_of_the_block_before_it(tmp_path):
    failing(tmp_path, "raise KeyError('no key 7 in map')", "KeyError: 'no key … in\n  map'")()
    with pytest.raises(AssertionError, match=r"page\.md:9: the message is now:\nKeyError: 8"):
        failing(tmp_path, "raise KeyError(8)", "KeyError: 7")()
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        failing(tmp_path, "pass", "KeyError: 7")()


def test_a_c_block_keeps_its_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```c\n// file: x.bpf.c\nint x(\n```\n")
    write_sources(page, tmp_path)
    assert (tmp_path / "x.bpf.c").read_text().splitlines()[4] == "int x("


def test_a_c_block_without_a_name(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```c\nint x;\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:2: a C block must begin with"):
        write_sources(page, tmp_path)
