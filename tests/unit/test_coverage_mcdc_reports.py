"""Tests what reports show of conditions (MC/DC), and that they show nothing where nobody asked for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.coverage.data import Branch, Coverage, Decision, FileCoverage, Unmeasured
from pytest_bpfmaps.coverage.reports import Report, Request
from pytest_bpfmaps.coverage.reports.term_report import lines
from pytest_bpfmaps.coverage.view import View

SOURCE = """\
int f(int a, int b)
{
\tif (a && b)
\t\treturn a > 2 || b > 2;
\treturn g(a && b);
}
"""
WAYS = [(3, "6-7"), (3, "11-12"), (4, "10-15"), (4, "19-24")]
FIRST = Decision(3, "3:6-3:12", "3:6 3:11", "", "")
SECOND = Decision(4, "4:10-4:24", "4:10 4:19", "", "")
NESTED = Unmeasured(5, "contains an operation with a nested boolean expression")


def _file(vectors: dict[Decision, int]) -> FileCoverage:
    return FileCoverage(
        lines=dict.fromkeys(range(2, 6), 3),
        branches={Branch(line, place, way): 1 for line, place in WAYS for way in ("true", "false")},
        decisions={FIRST: 0, SECOND: 0, **vectors} if vectors else {},
        unmeasured={NESTED: 1} if vectors else {},
    )


def _view(folder: Path, *kernels: dict[Decision, int]) -> View:
    source = folder / "f.bpf.c"
    source.write_text(SOURCE)
    coverage = Coverage()
    for number, vectors in enumerate(kernels):
        coverage.kernel(f"6.{number}").files[str(source)] = _file(vectors)
    return View(coverage, folder, [])


@pytest.fixture
def view(tmp_path: Path) -> View:
    """Has two kernels. On each, one condition of the first decision is seen to decide alone."""
    both, no_first, no_second = (FIRST._replace(vector=v) for v in ("TT=T", "F-=F", "TF=F"))
    return _view(tmp_path, {both: 1, no_first: 1}, {both: 1, no_second: 1})


def _written(view: View, kind: str, name: str) -> str:
    Report(Request(kind, name), view, view.root).write()
    return (view.root / name).read_text()


def test_the_table_has_a_column(view: View) -> None:
    shown = lines(view, missing=True)
    assert shown[0].split() == [
        "File",
        "Lines",
        "Miss",
        "Branch",
        "Miss",
        "MC/DC",
        "Miss",
        "Cover",
        "6.0",
        "6.1",
    ]
    assert shown[1].split() == ["f.bpf.c", "4", "0", "8", "0", "4", "2", "100%", "100%", "100%"]
    assert shown[2:4] == [
        "    never decided alone: 4 conditions 1/2 of 2",
        "    no MC/DC: 5 contains an operation with a nested boolean expression",
    ]


def test_lcov_has_the_records_of_geninfo(view: View) -> None:
    found = [line for line in _written(view, "lcov", "out.info").splitlines() if line.startswith("MC")]
    assert found == [
        "MCDC:3,2,t,1,0,condition 1 at 3:6",
        "MCDC:3,2,f,1,0,condition 1 at 3:6",
        "MCDC:3,2,t,1,1,condition 2 at 3:11",
        "MCDC:3,2,f,1,1,condition 2 at 3:11",
        "MCDC:4,2,t,0,0,condition 1 at 4:10",
        "MCDC:4,2,f,0,0,condition 1 at 4:10",
        "MCDC:4,2,t,0,1,condition 2 at 4:19",
        "MCDC:4,2,f,0,1,condition 2 at 4:19",
        "MCF:8",
        "MCH:4",
    ]


def test_decisions_of_a_line_are_one_group_in_lcov(tmp_path: Path) -> None:
    """lcov takes a second group of the same size for the first one, and a gap for an error."""
    second = SECOND._replace(line=3, place="3:10-3:24")
    view = _view(tmp_path, {second: 0, FIRST._replace(conditions="3:6 3:11C"): 0})
    found = [
        line.split(",")[:5] for line in _written(view, "lcov", "out.info").splitlines() if "MCDC" in line
    ]
    assert [(size, sense, index) for line, size, sense, _, index in found if line == "MCDC:3"] == [
        ("5", sense, str(index)) for index in range(5) for sense in "tf"
    ]


def test_json_has_conditions_and_what_was_seen(view: View) -> None:
    found = json.loads(_written(view, "json", "out.json"))
    file: dict[str, Any] = found["files"]["f.bpf.c"]
    assert (found["totals"]["covered_conditions"], found["totals"]["num_conditions"]) == (2, 4)
    assert file["summary"]["missing_conditions"] == 2
    assert [file["kernels"][name]["summary"]["covered_conditions"] for name in ("6.0", "6.1")] == [1, 1]
    first, second = file["decisions"]
    assert first["vectors"] == ["F-=F", "TF=F", "TT=T"]
    assert [(one["line"], one["column"], one["decided"]) for one in second["conditions"]] == [
        (4, 10, False),
        (4, 19, False),
    ]
    assert file["unmeasured_decisions"] == [{"line": 5, "reason": NESTED.reason}]


def test_the_page_says_which_condition_never_decided(view: View) -> None:
    Report(Request("html", "html"), view, view.root).write()
    index, page = ((view.root / "html" / name).read_text() for name in ("index.html", "f.bpf.c.html"))
    assert "<th>MC/DC</th><th>Missed</th>" in index
    assert index.count("<td>4</td><td>2</td>") == 2
    assert "condition 1 (column 10): never seen to decide alone" in page
    assert "condition 2 (column 19): never seen to decide alone" in page
    assert "values seen of the 2 conditions: none" in page
    assert "(column 6)" not in page
    assert f"conditions are not recorded: {NESTED.reason}" in page
    assert [line for line in (4, 5) if f'id="L{line}" class="part"' in page] == [4, 5]


def test_nothing_of_it_without_conditions(tmp_path: Path) -> None:
    view = _view(tmp_path, {})
    Report(Request("html", "html"), view, view.root).write()
    written = [
        _written(view, "lcov", "out.info"),
        _written(view, "json", "out.json"),
        *lines(view, missing=True),
    ]
    written += [page.read_text() for page in (view.root / "html").iterdir()]
    assert not [text for text in written if "MC/DC" in text or "MCDC" in text or "conditions" in text]
