"""Counts of the emulator's record are those that llvm-cov gives for the same C, run natively."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.coverage.counters.llvm_tools import tools_for
from pytest_bpfmaps.coverage.data import KernelCoverage
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

EXECUTED = Path(__file__).parent / "executed"
sys.path[:0] = [str(EXECUTED), str(EXECUTED.parent / "covered")]
from in_guest import measure  # noqa: E402
from native import counting_clang, native_counts  # noqa: E402
from run_programs import PARALLEL, SIMPLE, THREADS, TIMES, packets, packets_of  # noqa: E402

PROGRAMS = [*SIMPLE, "callbacks", *PARALLEL]
HEADER = EXECUTED / "shared.h"

# The machine code goes back behind the head of a loop, and has one place for several returns of a function.
MERGED = re.compile(r"\s*(for |do |return XDP_|\}$)")

Files = dict[str, dict[str, dict[Any, Any]]]


@pytest.fixture(scope="module", params=[kernel.name for kernel in Catalogue()])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> KernelCoverage:
    """What the programs of the folder `executed` ran in a guest."""
    folder = tmp_path_factory.mktemp("measured")
    return measure(EXECUTED / "run_programs.py", EXECUTED, folder, kernel=request.param)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """What llvm-cov says of the native form of each program."""
    clang = counting_clang()
    tools = tools_for(clang)
    return {
        name: native_counts(
            EXECUTED / f"{name}.bpf.c",
            packets_of(name),
            tmp_path_factory.mktemp(name),
            clang,
            (tools.profdata, tools.cov),
        )
        for name in PROGRAMS
    }


def compare_lines(path: Path, mine: dict[int, int], native: dict[int, int]) -> None:
    """Compares the counts of a file's lines, for all lines that both have."""
    text = dict(enumerate(path.read_text().splitlines(), 1))
    marked = {n for n in text if text[n].strip().startswith(("seen[", "mine["))}
    assert marked <= mine.keys() & native.keys()
    exact = [n for n in mine.keys() & native.keys() if not MERGED.match(text[n])]
    assert {n: mine[n] for n in exact} == {n: native[n] for n in exact}


@pytest.mark.parametrize("name", PROGRAMS)
def test_lines_run_as_often_as_natively(
    measured: KernelCoverage, native: dict[str, Files], name: str
) -> None:
    source = EXECUTED / f"{name}.bpf.c"
    if name == "callbacks" and str(source) not in measured.files:
        pytest.skip("this kernel lacks the helper bpf_loop")
    times = TIMES * THREADS if name in PARALLEL else 1
    expected = {line: count * times for line, count in native[name][str(source)]["lines"].items()}
    compare_lines(source, measured.files[str(source)].lines, expected)


def test_lines_of_a_header_have_the_sum_of_its_programs(
    measured: KernelCoverage, native: dict[str, Files]
) -> None:
    total: Counter[int] = Counter()
    for files in native.values():
        total.update(files.get(str(HEADER), {"lines": {}})["lines"])
    compare_lines(HEADER, measured.files[str(HEADER)].lines, total)


@pytest.mark.parametrize("name", SIMPLE)
def test_branches_go_as_often_as_natively(
    measured: KernelCoverage, native: dict[str, Files], name: str
) -> None:
    """The machine's jump may be for the condition or against it, so both ways are compared as a pair."""
    source = EXECUTED / f"{name}.bpf.c"
    mine, expected = (
        {
            line: sorted(count for key, count in branches.items() if key[0] == line)
            for line in {key[0] for key in branches}
        }
        for branches in (measured.files[str(source)].branches, native[name][str(source)]["branches"])
    )
    text = source.read_text().splitlines()
    both = [n for n in mine.keys() & expected.keys() if text[n - 1].strip().startswith("if ")]
    single = [n for n in both if len(mine[n]) == len(expected[n]) == 2]
    assert single
    assert {n: mine[n] for n in single} == {n: expected[n] for n in single}


def test_functions_begin_where_they_are_defined(measured: KernelCoverage) -> None:
    functions = measured.files[str(EXECUTED / "functions.bpf.c")].functions
    runs = len(packets())
    assert {(f.name, f.line): count for f, count in functions.items()} == {
        ("program", 23): runs,
        ("global_function", 17): runs,
        ("below", 9): 2 * runs,
    }
