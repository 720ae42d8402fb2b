"""Tests `bpfmaps new`: what it writes, what it refuses, and that nothing is left of a refused project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.cli import main
from pytest_bpfmaps.commands.new import TEMPLATES, VARIANTS

LONGEST = "a" * 30


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty current folder, and a catalogue without a kernel."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_files_of_each_kind():
    assert main(["new", "first"]) == 0
    common = {"README.md", "pyproject.toml", "requirements.txt", ".gitignore", ".github/workflows/test.yml"}
    assert files_in(Path("first")) == common | {"bpf/first.bpf.c", "tests/test_first.py"}
    assert "sched_process_exec" in Path("first/bpf/first.bpf.c").read_text()
    assert main(["new", "second", "--xdp"]) == 0
    assert 'SEC("xdp")' in Path("second/bpf/second.bpf.c").read_text()
    assert main(["new", "third", "--agent"]) == 0
    agents = {"src/third.c", "Makefile", "tests/conftest.py", "bpf/third.bpf.c", "tests/test_third.py"}
    assert files_in(Path("third")) == common | agents


def test_it_prints_the_files_and_what_to_do_next(capsys):
    assert main(["new", "first", "--xdp"]) == 0
    made, then = capsys.readouterr().out.split("\nnext:\n")
    assert set(made.splitlines()[1:]) == {f"  {name}" for name in files_in(Path("first"))}
    assert then.startswith("  cd first\n  pip install -r requirements.txt\n")
    # the catalogue is empty
    assert "  bpfmaps kernels fetch debian:bookworm     # a kernel for virtual machines" in then
    assert "  pytest --bpf-kernel=6.1" in then


def test_each_template_is_used():
    used = {source for files in VARIANTS.values() for source in files.values()}
    there = {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*") if path.is_file()}
    assert {name for name in there if not name.startswith("common/")} == used


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("name", ["x", LONGEST])
def test_the_style_is_right(monkeypatch, kind, name):
    assert main(["new", name, f"--{kind}"]) == 0
    monkeypatch.chdir(name)
    assert "PROJECT" not in "".join(path.read_text() for path in Path().rglob("*") if path.is_file())
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")


def test_the_types_are_right(mypy_cache):
    for kind in VARIANTS:
        assert main(["new", kind, f"--{kind}"]) == 0
    options = ["--config-file=agent/pyproject.toml", f"--cache-dir={mypy_cache}"]
    run("mypy", *options, *(f"{kind}/tests" for kind in VARIANTS))


def test_the_workflow_has_commands_that_bash_understands():
    yaml = pytest.importorskip("yaml")
    main(["new", "first"])
    (job,) = yaml.safe_load(Path("first/.github/workflows/test.yml").read_text())["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[-1] == ".venv/bin/pytest --bpf-kernel=6.1"
    for each in commands:
        subprocess.run(["bash", "-n"], input=each, text=True, check=True)
    assert all("run" in step or "uses" in step for step in job["steps"])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("my-firewall", "bpfmaps new my_firewall"),
        ("1st", "bpfmaps new _1st"),
        ("a/b", "bpfmaps new a_b"),
        ("../up", "bpfmaps new up"),
        ("", "bpfmaps new counter"),
        ("zähler", "bpfmaps new z_hler"),
        ("\x1b[31m", "bpfmaps new _31m"),
        ("a" * 31, "bpfmaps new " + LONGEST),
    ],
)
def test_a_name_that_is_no_identifier(capsys, place, name, remedy):
    assert main(["new", name]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[0] == (
        f"bpfmaps: cannot make a project {name!r}: a name has at most 30 letters, digits and underscores, "
        "and does not begin with a digit"
    )
    assert said.splitlines()[1] == f"  -> {remedy}"
    assert os.listdir(place) == []
    assert main(remedy.split()[1:]) == 0


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_where_something_is_already(capsys, place, what):
    there = Path("first")
    if what == "file":
        there.write_text("mine")
    elif what == "folder":
        there.mkdir()
    else:
        there.symlink_to("nowhere")
    assert main(["new", "first"]) == 1
    assert capsys.readouterr().err == (
        "bpfmaps: cannot make a project in first: there is something of that name\n"
        "  -> give another name, or move it away: mv first first.old\n"
        "  see: bpfmaps docs cannot-make-project\n"
    )
    assert os.listdir(place) == ["first"]
    assert files_in(place) == ({"first"} if what == "file" else set())
    there.rename("first.old")
    assert main(["new", "first"]) == 0


def test_a_folder_that_can_not_be_written(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir("/proc")
    assert main(["new", "first"]) == 1
    assert capsys.readouterr().err.startswith("bpfmaps: cannot make a project in first: E")


def test_two_kinds_at_once(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["new", "first", "--xdp", "--agent"])
    assert caught.value.code == 2
    assert "not allowed with argument --xdp" in capsys.readouterr().err
