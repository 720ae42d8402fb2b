"""Tests the reports of a coverage: files, lines and sums."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pytest_bpfmaps.cache.stored_files import digest
from pytest_bpfmaps.coverage.data import Branch, Coverage, FileCoverage, Function, Measured
from pytest_bpfmaps.coverage.reports import Report, Request, report_requests
from pytest_bpfmaps.coverage.reports.term_report import WIDTH, lines
from pytest_bpfmaps.coverage.view import View

SOURCE = """\
int f(int x)
{
\tif (x) // <&>
\t\treturn 1;
\tunused(); // bpfmaps: no cover
\told();
\treturn 2;
}
"""


def _file() -> FileCoverage:
    return FileCoverage(
        lines={2: 3, 3: 3, 4: 0, 5: 0, 6: 0, 7: 3, 8: 3},
        branches={Branch(3, "6-7", "true"): 0, Branch(3, "6-7", "false"): 3},
        functions={Function("f", 2): 3},
        dead={6: 1},
        sources={digest(SOURCE): 1},
    )


@pytest.fixture
def view(tmp_path: Path) -> View:
    source = tmp_path / "bpf" / "prog.bpf.c"
    source.parent.mkdir()
    source.write_text(SOURCE)
    coverage = Coverage()
    for kernel in ("6.1", "host", "5.10"):
        coverage.kernel(kernel).files[str(source)] = _file()
        coverage.kernel(kernel).programs[Measured("prog.bpf.c", "f", "counters")] = 2
    coverage.kernel("6.1").contexts["test_a.py::test_f"] = {str(source): {3: 3}}
    coverage.kernel("6.1").programs[Measured("other.bpf.o", "g", "", "no source of it was compiled here")] = 1
    coverage.kernel("6.1").file("/usr/include/linux/ip.h").lines[1] = 1
    coverage.kernel("6.1").file(str(tmp_path / "vmlinux.h")).lines[1] = 1
    return View(coverage, tmp_path, [])


def test_only_files_below_the_root(view: View) -> None:
    assert [file.name for file in view.files] == ["bpf/prog.bpf.c"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.bpf.c", ["bpf/prog.bpf.c"]),
        ("bpf/*", ["bpf/prog.bpf.c"]),
        ("vmlinux.h", ["vmlinux.h"]),
        ("x*", []),
    ],
)
def test_patterns(view: View, pattern: str, names: list[str]) -> None:
    assert [file.name for file in View(view.coverage, view.root, [pattern]).files] == names


def test_the_host_comes_first_then_versions(view: View) -> None:
    assert view.kernels == ["host", "5.10", "6.1"]


def test_excluded_and_unreachable_lines_are_not_counted(view: View) -> None:
    (file,) = view.files
    assert (file.excluded, file.unreachable) == ({5}, {6})
    assert file.missing == [4]
    assert file.percent == pytest.approx(80)
    assert file.partial() == [3]


def test_a_line_that_one_kernel_reaches_is_missing(view: View) -> None:
    view.coverage.kernels["host"].files[view.files[0].path].alive[6] = 1
    (file,) = View(view.coverage, view.root).files
    assert (file.unreachable, file.missing) == (set(), [4, 6])


def test_a_changed_source_is_told(view: View) -> None:
    said: list[str] = []
    (view.root / "bpf/prog.bpf.c").write_text(SOURCE + "// more\n")
    assert View(view.coverage, view.root, tell=said.append).files
    assert said == [
        "bpf/prog.bpf.c has changed since it was compiled: lines may be off\n  -> run the tests again"
    ]
    (view.root / "bpf/prog.bpf.c").unlink()
    assert View(view.coverage, view.root, tell=said.append).files
    assert said[1] == "bpf/prog.bpf.c: its lines can't be shown: No such file or directory"


def test_terminal(view: View) -> None:
    assert lines(view, missing=True) == [
        "File            Lines  Miss  Branch  Miss  Cover  host  5.10  6.1",
        "bpf/prog.bpf.c      5     1       2     1    80%   80%   80%  80%",
        "    missing: 4",
        "    branches: 3 never true",
        "    no kernel reaches: 6",
        "TOTAL               5     1       2     1    80%   80%   80%  80%",
        "measured: 1 program by counters",
        "not measured: g of other.bpf.o on 6.1: no source of it was compiled here",
    ]


def test_the_table_is_never_wider_than_a_terminal(view: View) -> None:
    path = str(view.root / ("a" * 70) / ("b" * 70 + ".bpf.c"))
    for number in range(20):
        kernel = view.coverage.kernel(f"6.{number}-a-long-name")
        kernel.file(path).lines.update({line: line % 3 % 2 for line in range(1, 200)})
        kernel.programs[Measured("o" * 90, "p" * 90, "", "because " * 30)] = 1
    shown = lines(View(view.coverage, view.root), missing=True)
    assert max(len(line) for line in shown if "o" * 80 not in line and "p" * 80 not in line) <= WIDTH
    assert any("…" in line for line in shown)


def test_it_is_100_only_when_all_lines_ran(tmp_path: Path) -> None:
    coverage = Coverage()
    coverage.kernel("host").file(str(tmp_path / "a.c")).lines.update({n: int(n != 1) for n in range(1, 2000)})
    coverage.kernel("host").file(str(tmp_path / "b.c")).lines.update({n: int(n == 1) for n in range(1, 2000)})
    covers = [line.split()[-1] for line in lines(View(coverage, tmp_path))]
    assert covers[1:3] == ["99%", "1%"]


def _write(view: View, kind: str, folder: Path) -> Path:
    (line,) = Report(Request(kind, f"new/{kind}"), view, folder).write()
    assert line == f"{kind} report: new/{kind}"
    return folder / "new" / kind


def test_lcov(view: View, tmp_path: Path) -> None:
    assert _write(view, "lcov", tmp_path).read_text().splitlines() == [
        *("TN:", "SF:bpf/prog.bpf.c", "FN:2,f", "FNDA:9,f", "FNF:1", "FNH:1"),
        *("BRDA:3,0,0,9", "BRDA:3,0,1,0", "BRF:2", "BRH:1"),
        *("DA:2,9", "DA:3,9", "DA:4,0", "DA:7,9", "DA:8,9", "LF:5", "LH:4", "end_of_record"),
    ]


def test_json(view: View, tmp_path: Path) -> None:
    found = json.loads(_write(view, "json", tmp_path).read_text())
    file = found["files"]["bpf/prog.bpf.c"]
    assert file["executed_lines"] == [2, 3, 7, 8]
    assert (file["missing_lines"], file["excluded_lines"], file["unreachable_lines"]) == ([4], [5], [6])
    assert file["contexts"] == {"3": ["test_a.py::test_f"]}
    assert file["kernels"]["5.10"]["counts"]["3"] == 3
    assert found["totals"]["percent_covered"] == 80
    assert found["meta"]["kernels"] == ["host", "5.10", "6.1"]


def test_cobertura(view: View, tmp_path: Path) -> None:
    root = ET.parse(_write(view, "xml", tmp_path)).getroot()
    assert (root.get("line-rate"), root.get("lines-valid"), root.get("branches-covered")) == ("0.8", "5", "1")
    assert root.findtext("sources/source") == str(view.root)
    (found,) = root.iter("class")
    assert found.get("filename") == "bpf/prog.bpf.c"
    hits = {line.get("number"): line.get("hits") for line in found.findall("lines/line")}
    assert hits == {"2": "9", "3": "9", "4": "0", "7": "9", "8": "9"}
    conditions = [
        line.get("condition-coverage") for line in found.findall("lines/line") if line.get("branch")
    ]
    assert conditions == ["50% (1/2)"]


def test_html(view: View, tmp_path: Path) -> None:
    folder = _write(view, "html", tmp_path)
    index, page = (folder / "index.html").read_text(), (folder / "bpf_prog.bpf.c.html").read_text()
    assert 'href="bpf_prog.bpf.c.html"' in index
    assert "no source of it was compiled here" in index
    kinds = {int(n): kind for n, kind in _rows(page)}
    assert kinds == {
        1: "",
        2: "hit",
        3: "part",
        4: "miss",
        5: "excluded",
        6: "unreachable",
        7: "hit",
        8: "hit",
    }
    assert "&lt;&amp;&gt;" in page
    assert "test_a.py::test_f" in page
    assert "http" not in index + page  # the page loads nothing from other places


def _rows(page: str) -> Iterator[tuple[str, str]]:
    for row in page.split('<tr id="L')[1:]:
        number, _, rest = row.partition('" class="')
        yield number, rest.partition('"')[0]


def test_names_of_reports() -> None:
    found = report_requests(["term", "html", "lcov:a:b", "none", "xml:x"])
    assert list(map(str, found)) == ["term", "html:bpf-htmlcov", "lcov:a:b", "xml:x"]


@pytest.mark.parametrize("text", ["", "pdf", "term:file", "termx"])
def test_what_is_no_report(text: str) -> None:
    with pytest.raises(ValueError, match=r"no report|be written to a file"):
        report_requests([text])
