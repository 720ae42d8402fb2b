"""Tests the parts of the page of a run: records, charts, costs, failures."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from generated_run import costs, reports
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_bpfmaps.cost.costs import REFUSED, Cost, Key
from pytest_bpfmaps.matrix.items import KERNEL_PROPERTY
from pytest_bpfmaps.report.page import failures as told
from pytest_bpfmaps.report.page.charts import HEIGHT, columns, line_chart, nice_ticks, spark
from pytest_bpfmaps.report.page.facts import cost_charts, cost_rows
from pytest_bpfmaps.report.page.runs import MOST, Run, earlier, keep

BEGIN = datetime(2026, 2, 3, 4, 5, 6, 789, UTC)
NUMBERS = st.floats(0, 1e9, allow_nan=False)


def run(day: int, **given: object) -> Run:
    return Run(BEGIN.replace(day=day), **given)  # type: ignore[arg-type]


def fail(text: str) -> None:
    pytest.fail(text)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = run(3, seconds=1.5, outcomes={"6.1": {"passed": 3}}, percents={"": 50.0}, costs=costs(3, ["6.1"]))
    keep(tmp_path, made)
    assert earlier(tmp_path, fail) == [made]


def test_only_the_newest_records_are_read(tmp_path: Path) -> None:
    for number in range(MOST + 3):
        keep(tmp_path, Run(BEGIN.replace(year=2000 + number)))
    assert [each.begun.year for each in earlier(tmp_path, fail)] == list(range(2003, 2003 + MOST))


def test_several_damaged_records_are_one_sentence(tmp_path: Path) -> None:
    keep(tmp_path, run(3))
    for number in range(3):
        (tmp_path / "runs" / f"{number}.json").write_text("{}")
    said: list[str] = []
    assert len(earlier(tmp_path, said.append)) == 1
    assert len(said) == 1
    assert said[0].startswith(f"the charts leave out an earlier run: {tmp_path}/runs/0.json can't be read: ")
    assert "; 2 other records can't be read either\n" in said[0]


@given(NUMBERS, NUMBERS)
@example(0.0, 5e-324)
def test_ticks_are_round_and_enclose(one: float, other: float) -> None:
    ticks = nice_ticks(min(one, other), max(one, other))
    assert 2 <= len(ticks) <= 8
    slack = 1e-6 * max(abs(each) for each in ticks)
    assert ticks[0] <= min(one, other) + slack
    assert ticks[-1] >= max(one, other) - slack


@given(st.lists(st.lists(st.none() | NUMBERS, min_size=4, max_size=4), min_size=1, max_size=9))
def test_a_chart_has_each_value_at_its_place(series: list[list[float | None]]) -> None:
    known = {str(at): values for at, values in enumerate(series) if any(v is not None for v in values)}
    if not known:
        return
    chart = line_chart("t", ["a", "b", "c", "d"], known, repr)
    points = [point for line in chart.lines for point in line.points]
    assert len(points) == sum(v is not None for vs in {tuple(vs) for vs in known.values()} for v in vs)
    assert all(0 <= point.x <= 100 and -0.01 <= point.y <= HEIGHT + 0.01 for point in points)
    places = sorted(line.label_y for line in chart.lines)
    assert all(after - before >= 14.99 for before, after in pairwise(places))


def test_series_that_are_alike_are_one_line() -> None:
    chart = line_chart("Instructions", ["a", "b"], {"5.10": [1, 3], "6.1": [1, 3], "7.2": [1, 9]}, str)
    assert [line.label for line in chart.lines] == ["5.10, 6.1", "7.2"]
    assert chart.summary == "Instructions. 5.10, 6.1: from 1 to 3 in 2 runs; 7.2: from 1 to 9 in 2 runs"
    assert chart.rows == [("5.10, 6.1", ["1", "3"]), ("7.2", ["1", "9"])]
    (low, high) = (line.points for line in chart.lines)
    assert low[0].y == high[0].y
    assert low[1].y > high[1].y  # pixels count from the top


def test_a_line_of_many_series_has_a_short_name() -> None:
    alike = {str(number): [1.0, 3.0] for number in range(5)}
    assert [line.label for line in line_chart("t", ["a", "b"], alike, str).lines] == ["all 5"]
    chart = line_chart("t", ["a", "b"], {**alike, "other": [2.0, 2.0]}, str)
    assert [line.label for line in chart.lines] == ["0 and 4 more", "other"]
    assert chart.rows[0][0] == "0, 1, 2, 3, 4"


def test_columns() -> None:
    first, second = columns(
        [("a", {"passed": 3, "failed": 1}), ("b", {"passed": 2})], ("passed", "skipped", "failed")
    )
    assert first.parts == [("passed", 30.0, 90.0), ("failed", 0.0, 30.0)]
    assert second.parts == [("passed", 60.0, 60.0)]
    assert (first.text, second.failed) == ("a: 3 passed, 0 skipped, 1 failed", 0)


def test_a_small_line() -> None:
    assert spark([1, None, 3]) == "0.0,18.0 100.0,2.0"
    assert spark([5, 5]) == "0.0,10.0 100.0,10.0"
    assert spark([None, 5]) == ""


def test_costs_by_kernel() -> None:
    kernels = ["5.10", "6.1", "7.2", "host"]
    now = costs(8, kernels)
    now[Key("bad.bpf.c", "refused", "large", "6.1")] = Cost(REFUSED, {"insns": 1_000_000})
    past = [run(1, costs=costs(8, kernels, grown=0.5)), run(2, costs=now)]
    rows = {(each.program, *each.kernels): each for group in cost_rows(now, past, kernels) for each in group}
    assert rows["program_7", "5.10", "6.1", "7.2", "host"].change == "+100.0%"
    assert rows["program_1", "5.10", "6.1", "7.2", "host"].change == "="
    assert rows["program_4", "5.10", "6.1", "7.2"].cost.figures["insns"] == 5 * 97
    assert rows["program_4", "host"].cost.figures["insns"] == 10 * 97
    refused = rows["refused [large]", "6.1"]
    assert (refused.share, refused.limit, refused.change) == (100, 100, "")
    charts, changed = cost_charts(now, past)
    assert changed == 2
    assert [chart.title for chart in charts] == [
        "program_0 of bpf/object_0.bpf.c",
        "program_7 of bpf/object_2.bpf.c",
    ]


def test_a_failure_on_several_kernels_is_told_once() -> None:
    made = [each for each in reports(300, ["5.10", "6.1"]) if each.failed]
    found = told.failures(made, {})
    assert len(found) == told.count_of_tests(made) < len(made)
    assert {tuple(each.kernels) for each in found} == {("5.10", "6.1"), ("6.1",)}
    assert [kind for kind, _ in found[0].lines if kind] == ["here", "cause", "cause", *found_more(found[0])]


def found_more(failure: told.Failure) -> list[str]:
    """The line that differs on the other kernel is there, too."""
    return ["cause"] if len(failure.kernels) > 1 else []


def test_a_page_of_many_failures_says_what_it_leaves_out() -> None:
    made = [
        SimpleNamespace(nodeid=f"test_x.py::test_{n}", longrepr="E   no", sections=[], when="call")
        for n in range(told.MOST_TESTS + 5)
    ]
    assert len(told.failures(made, {})) == told.MOST_TESTS
    assert told.count_of_tests(made) == told.MOST_TESTS + 5


def test_a_failure_that_arrives_late_names_its_kernel() -> None:
    made = [
        SimpleNamespace(
            nodeid=f"test_x.py::test_{n}[{kernel}]",
            longrepr="test\nE   no",
            sections=[],
            when="call",
            location=("test_x.py", 1, f"test_{n}[{kernel}]"),
            user_properties=[(KERNEL_PROPERTY, kernel)],
        )
        for kernel in ("6.1", "7.2")
        for n in range(told.MOST_TESTS + 5)
    ]
    found = told.failures(made, {})
    assert len(found) == told.MOST_TESTS
    assert {tuple(each.kernels) for each in found} == {("6.1", "7.2")}


def test_a_long_text_is_cut_in_its_middle() -> None:
    text = told.cut("a" * 100_000 + "b" * 100_000)
    assert text.startswith("a" * 20_000 + "\n… 160,000 characters are left out here …\n")
    assert text.endswith("b" * 20_000)
    assert told.cut("short") == "short"
