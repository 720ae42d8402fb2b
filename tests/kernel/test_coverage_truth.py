"""Tests that the counts of BPF programs equal llvm-cov's for the same C as a native program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.coverage.counters.llvm_tools import tools_for
from pytest_bpfmaps.errors import CompileError, UnsupportedError

sys.path.insert(0, str(Path(__file__).parent / "covered"))
from truth import PROGRAMS, check, measure


@pytest.fixture(scope="module", params=["clang-14", "clang-19"])
def clang(request: pytest.FixtureRequest) -> str:
    try:
        path = LocalCompiler(request.param).clang.path
        tools_for(path)
    except (CompileError, UnsupportedError) as e:
        pytest.skip(str(e).splitlines()[0])
    return path


@pytest.mark.bpf_requires("xdp", helper="bpf_loop")
def test_here(pytester: pytest.Pytester, clang: str, tmp_path: Path) -> None:
    found = measure(pytester, f"--bpf-clang={clang}")
    for name in PROGRAMS:
        folder = tmp_path / name
        folder.mkdir()
        check(found, "host", name, clang, folder)


@pytest.mark.parametrize("clang", ["clang-19"], indirect=True)
@pytest.mark.bpf_requires("xdp", helper="bpf_loop")
def test_conditions_here(pytester: pytest.Pytester, clang: str, tmp_path: Path) -> None:
    found = measure(pytester, f"--bpf-clang={clang}", "--bpf-cov-mcdc")
    for name in PROGRAMS:
        folder = tmp_path / name
        folder.mkdir()
        check(found, "host", name, clang, folder, mcdc=True)
