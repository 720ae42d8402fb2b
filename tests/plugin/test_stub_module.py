"""Tests the ini key bpf_stubs: a module with the types of objects is there before tests are collected."""

import shutil
from pathlib import Path

import pytest

BPF = Path(__file__).parents[2] / "bpf"


@pytest.fixture
def project(pytester):
    (pytester.path / "bpf").mkdir()
    (pytester.path / "tests").mkdir()
    shutil.copy(BPF / "drop_port.bpf.c", pytester.path / "bpf")
    pytester.makeini("[pytest]\nbpf_stubs = true\ntestpaths = tests\n")
    (pytester.path / "tests" / "test_it.py").write_text(
        "from bpf_types import Bpf, DropPortObject\n\n\ndef test_it():\n    assert Bpf and DropPortObject\n"
    )
    return pytester


def test_a_test_file_imports_it_in_the_first_run(project):
    project.runpytest().assert_outcomes(passed=1)
    made = project.path / "tests/bpf_types.py"
    assert "closed_port: builtins.int" in made.read_text()
    before = made.stat().st_mtime_ns
    project.runpytest("-n2").assert_outcomes(passed=1)
    assert made.stat().st_mtime_ns == before  # it is not written again
    (project.path / "bpf/more.bpf.c").write_text("int counter;")
    project.runpytest().assert_outcomes(passed=1)
    assert "class MoreObject(LoadedObject):" in made.read_text()


def test_a_source_that_clang_refuses_is_left_out(project):
    (project.path / "bpf/broken.bpf.c").write_text("int main(")
    project.runpytest().assert_outcomes(passed=1)
    text = (project.path / "tests/bpf_types.py").read_text()
    assert text.endswith("\n# broken.bpf.c is left out: clang refuses it\n")
    assert "DropPortObject" in text


def test_without_the_key_nothing_is_written(project):
    project.makeini("[pytest]\ntestpaths = tests\n")
    (project.path / "tests/test_it.py").write_text("def test_it(): pass\n")
    project.runpytest().assert_outcomes(passed=1)
    assert not (project.path / "tests/bpf_types.py").exists()
