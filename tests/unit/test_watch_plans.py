"""Tests what --bpf-watch runs after a change, by files of a project and what a run has told of them."""

from pathlib import Path

import pytest

from pytest_bpfmaps.watch.dependencies import EVERYTHING, Dependencies, Plan, Record, narrowed

FILES = (
    "test_one.py",
    "sub/test_two.py",
    "sub/conftest.py",
    "one.bpf.c",
    "one.h",
    "both.h",
    "two.bpf.c",
    "own.py",
)


@pytest.fixture
def known(tmp_path):
    """What is known after a run: two tests have a source each, and a header in common."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    objects = {
        "one.bpf.o": {tmp_path / "one.bpf.c", tmp_path / "one.h", tmp_path / "both.h"},
        "two.bpf.o": {tmp_path / "two.bpf.c", tmp_path / "both.h"},
    }
    known = Dependencies(lambda made: objects[made.name])
    files = {str(tmp_path / name): name for name in ("test_one.py", "sub/test_two.py")}
    uses = [
        ("test_one.py::test_it", str(tmp_path / "one.bpf.c"), "one.bpf.o"),
        ("sub/test_two.py", str(tmp_path / "two.bpf.c"), "two.bpf.o"),  # by bpf_module
    ]
    known.learn(Record(files=files, uses=uses, modules=[str(tmp_path / "own.py")]))
    return known


def plan(known, *paths):
    return known.plan(known.expand(paths))


def of_one(folder, more=()):
    files = frozenset(folder / name for name in more)
    tests = frozenset({"test_one.py::test_it"})
    return Plan(files=files, tests=tests, arguments=files | {folder / "test_one.py"})


def test_a_source_or_header_runs_its_users(known, tmp_path):
    assert plan(known, tmp_path / "one.bpf.c") == of_one(tmp_path)
    assert plan(known, tmp_path / "both.h") == of_one(tmp_path, ["sub/test_two.py"])
    (tmp_path / "one.h").unlink()
    assert plan(known, tmp_path / "one.h") == of_one(tmp_path)


def test_python_files(known, tmp_path):
    two = frozenset({tmp_path / "sub/test_two.py"})
    assert plan(known, tmp_path / "sub/test_two.py") == Plan(files=two, arguments=two)
    assert plan(known, tmp_path / "sub/conftest.py") == Plan(files=two, arguments=two)
    assert plan(known, tmp_path / "own.py") == EVERYTHING
    (tmp_path / "sub/test_two.py").unlink()
    assert not plan(known, tmp_path / "sub/test_two.py")


def test_what_nobody_knows(known, tmp_path):
    for name in ("new.py", "new.h", "new.bpf.o"):
        (tmp_path / name).touch()
        assert plan(known, tmp_path / name) == EVERYTHING
    for name in (".#test_one.py", "4913", "text.txt"):
        (tmp_path / name).touch()
        assert known.expand([tmp_path / name]) == []
    assert known.expand([tmp_path / "gone.py"]) == []
    assert Dependencies(lambda made: set()).plan([tmp_path / "one.h"]) == EVERYTHING


def test_a_folder_stands_for_its_files(known, tmp_path):
    assert set(known.expand([tmp_path / "sub"])) == {
        tmp_path / "sub/test_two.py",
        tmp_path / "sub/conftest.py",
    }
    (tmp_path / "sub").rename(tmp_path.parent / f"{tmp_path.name}-away")
    assert known.expand([tmp_path / "sub"]) == [tmp_path / "sub/test_two.py"]


def test_a_source_that_did_not_compile_keeps_its_headers_and_takes_others(known, tmp_path):
    known.learn(Record(uses=[("test_one.py::test_it", str(tmp_path / "one.bpf.c"), "")]))
    assert plan(known, tmp_path / "one.h") == of_one(tmp_path)
    assert plan(known, tmp_path / "two.bpf.c") == of_one(tmp_path, ["sub/test_two.py"])


def test_an_object_of_the_whole_run(known, tmp_path):
    known.learn(Record(uses=[("", str(tmp_path / "two.bpf.c"), "two.bpf.o")]))
    assert plan(known, tmp_path / "two.bpf.c") == EVERYTHING


def test_the_arguments_of_pytest_become_narrower(tmp_path):
    files = [Path("/p/tests/test_a.py"), Path("/p/other/test_b.py")]
    assert narrowed(["tests"], files, Path("/p")) == ["/p/tests/test_a.py"]
    assert narrowed(["."], files, Path("/p")) == ["/p/other/test_b.py", "/p/tests/test_a.py"]
    assert narrowed(["tests/test_a.py::test_x"], files, Path("/p")) == ["tests/test_a.py::test_x"]
    assert narrowed(["tests/test_a.py", "more"], files, Path("/p")) == ["tests/test_a.py"]


def test_headers_elsewhere_are_to_be_watched(known, tmp_path):
    assert known.outside([str(tmp_path)]) == set()
    assert known.outside([str(tmp_path / "sub")]) == {str(tmp_path)}
    known.learn(Record(uses=[("test_one.py::test_it", "/nowhere/x.bpf.c", "")]))  # a guest's file
    assert known.outside([str(tmp_path)]) == set()
