"""Tests that coverage data are sums: the order in which parts are added does not matter."""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.coverage.collected import Collected
from pytest_bpfmaps.coverage.counters.resolve import resolve
from pytest_bpfmaps.coverage.data import (
    FORMAT,
    Branch,
    Coverage,
    Decision,
    FileCoverage,
    Function,
    KernelCoverage,
    Measured,
    Region,
    Unmeasured,
)
from pytest_bpfmaps.coverage.engines import Record

LINES, COUNTS = st.integers(1, 4), st.integers(0, 1 << 64)
TEXTS = st.sampled_from(["a", "b", "ü\n"])
LINE_COUNTS = st.dictionaries(LINES, COUNTS, max_size=3)


def _counts(keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, int]]:
    return st.dictionaries(keys, COUNTS, max_size=3)


FILES = st.builds(
    FileCoverage,
    lines=LINE_COUNTS,
    branches=_counts(st.builds(Branch, LINES, TEXTS, TEXTS)),
    functions=_counts(st.builds(Function, TEXTS, LINES)),
    regions=_counts(st.builds(Region, LINES, LINES, LINES, LINES)),
    decisions=_counts(st.builds(Decision, LINES, TEXTS, TEXTS, TEXTS, TEXTS)),
    unmeasured=_counts(st.builds(Unmeasured, LINES, TEXTS)),
    alive=LINE_COUNTS,
    dead=LINE_COUNTS,
    sources=_counts(TEXTS),
)
PROGRAMS = _counts(st.builds(Measured, TEXTS, TEXTS, st.sampled_from(["counters", "blocks", ""]), TEXTS))
KERNELS = st.builds(
    KernelCoverage,
    files=st.dictionaries(TEXTS, FILES, max_size=2),
    contexts=st.dictionaries(TEXTS, st.dictionaries(TEXTS, LINE_COUNTS, max_size=2), max_size=2),
    programs=PROGRAMS,
)
ALL = st.builds(Coverage, st.dictionaries(st.sampled_from(["host", "6.1"]), KERNELS, max_size=2))


def _sum(*parts: Coverage) -> Coverage:
    total = Coverage()
    for part in parts:
        total.add(part)
    return total


@given(ALL, ALL)
def test_the_order_does_not_matter(a: Coverage, b: Coverage) -> None:
    assert _sum(a, b) == _sum(b, a)


@given(ALL, ALL, ALL)
def test_the_grouping_does_not_matter(a: Coverage, b: Coverage, c: Coverage) -> None:
    assert _sum(_sum(a, b), c) == _sum(a, _sum(b, c))


@given(ALL, ALL)
def test_what_is_added_stays_as_it_was(a: Coverage, b: Coverage) -> None:
    before = copy.deepcopy(b)
    total = _sum(a, b)
    total.add(b)
    assert b == before


@given(ALL)
def test_json_gives_back_the_same(a: Coverage) -> None:
    assert Coverage.from_plain(json.loads(json.dumps(a.to_plain()))) == a


@given(ALL, ALL)
def test_adding_before_or_after_json_is_the_same(a: Coverage, b: Coverage) -> None:
    again = _sum(Coverage.from_plain(a.to_plain()), Coverage.from_plain(b.to_plain()))
    assert again.to_plain() == _sum(a, b).to_plain()


@given(FILES, FILES)
def test_every_part_of_a_file_is_added(a: FileCoverage, b: FileCoverage) -> None:
    total = copy.deepcopy(a)
    total.add(b)
    for each in fields(FileCoverage):
        mine, more, both = (getattr(one, each.name) for one in (a, b, total))
        assert both == {key: mine.get(key, 0) + more.get(key, 0) for key in mine | more}


def test_a_line_that_did_not_run_is_kept() -> None:
    total = FileCoverage(lines={3: 0})
    total.add(FileCoverage(lines={4: 0}))
    assert total.lines == {3: 0, 4: 0}


def test_a_line_is_unreachable_when_no_load_could_reach_it() -> None:
    old, new = FileCoverage(dead={7: 2, 8: 1}), FileCoverage(alive={7: 1})
    assert old.unreachable() == {7, 8}
    old.add(new)
    assert old.unreachable() == {8}


def test_a_program_that_was_measured_once_is_measured() -> None:
    refused = Measured("a.bpf.c", "p", "", "the verifier refused it")
    other = Measured("a.bpf.c", "q", "", "it has no line information")
    kernel = KernelCoverage(programs={refused: 1, other: 2, Measured("a.bpf.c", "p", "blocks"): 1})
    assert list(kernel.not_measured()) == [other]


def test_the_sum_over_kernels() -> None:
    total = Coverage()
    for name in ("5.10", "6.1", "7.2"):
        total.kernel(name).file("/a.bpf.c").lines[1] = 2
    assert total.merged("/a.bpf.c").lines == {1: 6}
    assert total.merged("/a.bpf.c", ["5.10", "7.2", "6.12"]).lines == {1: 4}
    assert total.paths() == ["/a.bpf.c"]


@pytest.mark.parametrize(
    "plain",
    [{}, {"format": FORMAT + 1, "kernels": {}}, [], "x", None],
)
def test_what_is_no_data_is_refused(plain: Any) -> None:
    with pytest.raises(ValueError, match=f"no coverage data of format {FORMAT}"):
        Coverage.from_plain(plain)


@pytest.mark.parametrize(
    "file", [{"lines": [[5]]}, {"lines": [[]]}, {"pages": [[1, 2]]}, {"branches": [[3]]}, []]
)
def test_a_damaged_file_of_an_earlier_run_is_left_out(tmp_path: Path, file: Any) -> None:
    kept = tmp_path / "coverage"
    told: list[str] = []
    kept.write_text(json.dumps({"format": FORMAT, "kernels": {"host": {"files": {"/a": file}}}}))
    assert Collected(told.append).coverage(kept, append=True) == Coverage()
    (said,) = told
    assert said.startswith(f"cannot add to the coverage in {kept}: ")
    assert said.endswith("\n  -> remove it, and run all tests again")


def test_a_source_that_is_gone_is_left_out(tmp_path: Path) -> None:
    kept, source = tmp_path / "coverage", str(tmp_path / "gone.bpf.c")
    told: list[str] = []
    earlier = Coverage()
    earlier.kernel("host").file(source).lines[1] = 1
    kept.write_text(json.dumps(earlier.to_plain()))
    assert Collected(told.append).coverage(kept, append=True).paths() == []
    assert told == [
        f"{source} can't be read (No such file or directory): what earlier runs counted of it is left out"
    ]


@pytest.mark.parametrize(
    "counted", [{}, {"objects": 3, "unreachable": None}, {"without_mcdc": "a.bpf.o"}, {"objects": [1]}]
)
def test_what_a_guest_counted_may_be_anything(counted: dict[str, Any]) -> None:
    told: list[str] = []
    total = Coverage()
    resolve([Record("counters", "6.1", "", counted)], total, told.append)
    assert total == Coverage()
    (said,) = told
    assert said.startswith("6.1: what a guest counted is not as expected: ")


@pytest.mark.parametrize("count", [-1, 1.5, "1", None])
def test_what_is_no_count_is_refused(count: Any) -> None:
    plain = {"format": FORMAT, "kernels": {"host": {"files": {"/a": {"lines": [[1, count]]}}}}}
    with pytest.raises(ValueError, match="is no count"):
        Coverage.from_plain(plain)
