"""Tests the manual: the pages that are made from the code are complete, and a fault fails the build."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_bpfmaps
from pytest_bpfmaps import errors
from pytest_bpfmaps.cli import parser
from pytest_bpfmaps.fixtures import __dict__ as fixtures

pytest.importorskip("sphinx", reason="Sphinx is missing: pip install 'pytest-bpfmaps[docs]'")
DOCS = Path(__file__).parents[2] / "docs"


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", *options]
    return subprocess.run(
        [*command, folder / "docs", folder / "html"], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    """A copy of the manual, which is built."""
    folder = tmp_path_factory.mktemp("manual")
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("reference"))
    templates = "pytest_bpfmaps/templates"  # a page shows one
    shutil.copytree(DOCS.parent / templates, folder / templates)
    done = build(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def page(manual: Path, name: str) -> str:
    return (manual / "docs/reference" / f"{name}.md").read_text()


def test_each_option_and_key_is_there(manual):
    text = page(manual, "options")
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True, cwd=manual
    ).stdout
    options = set(re.findall(r"^ +(--bpf-[\w-]+)", said, re.MULTILINE))
    keys = set(re.findall(r"^ +(bpf_\w+) \(", said, re.MULTILINE))
    assert len(options) > 10
    assert len(keys) > 10
    for name in options:
        assert re.search(rf"^`{name}[=`]", text, re.MULTILINE), name
    for name in keys:
        assert f"`{name}` (" in text, name


def test_each_command_is_there(manual):
    text = page(manual, "commands")
    for name in next(a for a in parser()._actions if a.choices).choices:
        assert f"\n## bpfmaps {name}\n" in text


def test_each_marker_and_fixture_is_there(manual):
    text = page(manual, "markers-and-fixtures")
    names = [n for n, made in fixtures.items() if type(made).__name__ == "FixtureFunctionDefinition"]
    assert "bpf_netns" in names
    for name in names:
        assert f"\n`{name}`" in text, name
    for name in ("bpf_kernels(", "bpf_fresh_kernel", "bpf_requires(", "bpf_kernel_warnings("):
        assert f"`@pytest.mark.{name}" in text


def test_each_public_type_is_there(manual):
    html = (manual / "html/reference/api.html").read_text()
    for name in pytest_bpfmaps.__all__:
        made = getattr(pytest_bpfmaps, name)
        if inspect.isclass(made) and not issubclass(made, Exception | int):
            assert f'id="{made.__module__}.{made.__name__}"' in html, name
    assert "How many elements it can hold" in html


def test_each_error_has_an_address(manual):
    html = (manual / "html/reference/errors.html").read_text()
    for name, made in inspect.getmembers(errors, inspect.isclass):
        if issubclass(made, Exception) and made.__module__ == errors.__name__:
            slug = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
            assert f'id="{slug}"' in html
    said = re.sub("<[^>]+>", "", (manual / "html/errors/reports.html").read_text())
    assert "there is something of that name" in said
    assert "give another name, or move it away: mv …" in said


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("maps", "[x](no-such-page.md)", "no-such-page.md"),
        ("maps", "[x](#no-such-heading)", "no-such-heading"),
        ("lonely", "# A page that no list has", "isn't included in any toctree"),
    ],
)
def test_a_fault_fails_the_build(manual, name, text, said):
    changed = manual / "docs" / f"{name}.md"
    before = changed.read_text() if changed.exists() else None
    try:
        changed.write_text(f"{before or ''}\n{text}\n")
        done = build(manual)
        assert done.returncode == 1
        assert f"{name}.md" in done.stderr
        assert said in done.stderr
    finally:
        if before is None:
            changed.unlink()
        else:
            changed.write_text(before)
