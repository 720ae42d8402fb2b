"""Tests parts of reports that need no kernel: merged failures, folders of artifacts, long values."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_bpfmaps.matrix.items import KERNEL_PROPERTY
from pytest_bpfmaps.report.artifacts import FACTS, FILES, Writer, folder_of
from pytest_bpfmaps.report.assertions import Text
from pytest_bpfmaps.report.explanations import shorten
from pytest_bpfmaps.report.failures import is_said
from pytest_bpfmaps.report.merged_failures import differences, merged


def lines(*parts: str) -> str:
    return "\n".join(parts)


def test_differences_of_two_texts() -> None:
    assert differences(lines(*"abcd"), lines(*"axcd")) == ["x"]
    assert differences(lines(*"abcd"), lines(*"abxcd")) == ["x"]
    assert differences(lines(*"abcd"), lines(*"abcd")) == []
    assert differences(lines(*"abcd"), lines(*"abc")) is None
    assert differences("a\nat 0x7f12345678\nc", "a\nat 0x7f87654321\nc") == []
    assert differences(lines(*"aaaaaaaa", "b"), lines(*"xaaaaaaa", "y")) == ["x", "y"]


@pytest.mark.parametrize(
    "text",
    [
        "RunResult(retval=XDP_TX, duration_ns={})",
        "waited for a line of process {} (agent): it ended",
        "descriptor {0} of a map (map id {0}), opened while test_x.py:3 ran",
        "descriptor {0} of a program (prog id {0})",
    ],
)
def test_numbers_that_no_two_runs_have_alike_are_no_difference(text: str) -> None:
    same = ["the same", "and again"]
    assert differences(lines(text.format(7), *same), lines(text.format(12), *same)) == []
    assert differences(lines("at 7 ns", *same), lines("at 12 ns", *same)) == ["at 12 ns"]


def test_output_that_the_message_has_is_not_shown_again() -> None:
    message = "it ended\n  its stdout:\n    one\n\n    two\n  its stderr:\n    three\n  -> start it by hand"
    assert is_said("one\n\ntwo\n", message)
    assert is_said("  three", message)
    assert not is_said("one\ntwo\n", message)
    assert not is_said("zero\none\n", message)
    assert not is_said("one\n", "")


def test_what_only_leads_to_a_value_is_left_out() -> None:
    packet = r"b'\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00E\x00\x00\x1c'"
    kept = [
        "    assert load().run(udp()).retval == XDP_PASS",
        "E   AssertionError: assert XDP_TX == XDP_PASS",
        "E    +  where XDP_TX = RunResult(retval=XDP_TX, data=<42 bytes>, duration_ns=9).retval",
        "E    +  where 0 = len(<map 'conns' (hash), __u32 -> struct conn>)",
        "E    +      and   b'short' = udp()",
        "E    +  where {'a': 1} = {'b': {'a': 1}}.b",
    ]
    left_out = [
        "E    +    where RunResult(retval=XDP_TX, data=<42 bytes>, duration_ns=9) = run(…)",
        "E    +      where run = <program 'ttl' (xdp)>.run",
        "E    +        where load = <pytest_bpfmaps.harness.Bpf object at 0x7fb9818d2950>.load",
        f"E    +      and   {packet} = udp()",
        "E    +    where <map 'conns' (hash), __u32 -> struct conn> = <maps of nest.bpf.c: conns>.conns",
    ]
    entry = SimpleNamespace(lines=[*kept, *left_out], reprfuncargs=None)
    shorten(SimpleNamespace(chain=[(SimpleNamespace(reprentries=[entry]), None, None)]))
    assert entry.lines == kept


def _failed(kernel: str, *sections: tuple[str, str]) -> SimpleNamespace:
    domain = f"test_it[{kernel}]"
    return SimpleNamespace(
        nodeid=f"test_x.py::{domain}",
        when="call",
        location=("test_x.py", 3, domain),
        longrepr="one\ntwo",
        sections=list(sections),
        user_properties=[(KERNEL_PROPERTY, kernel)],
    )


def test_the_output_of_processes_is_merged_in_the_order_of_each_run() -> None:
    a, b = ("Captured stdout of agent (pid {})", "first"), ("Captured stdout of agent (pid {})", "second")
    reports = [
        _failed(kernel, *((title.format(pid), text) for pid, (title, text) in enumerate((a, b), base)))
        for kernel, base in (("host", 100), ("6.1", 7))
    ]
    (together,) = merged(reports)
    assert together.sections == [(a[0].format(100), "first"), (b[0].format(101), "second")]
    reports[1].sections[1] = (b[0].format(8), "another")
    (together,) = merged(reports)
    assert together.sections == [
        (a[0].format(100), "first"),
        (f"{b[0].format(101)} [host]", "second"),
        (f"{b[0].format(8)} [6.1]", "another"),
    ]


def test_long_texts_with_the_same_lines_are_compared_where_they_differ() -> None:
    same = ["a packet came"] * 100_000
    assert differences(lines(*same, "one", *same), lines(*same, "two", *same)) == ["two"]
    same = same[:1000]
    assert differences(lines("one", *same, "one"), lines("two", *same, "two")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("test_x.py::test[a::b]", "test_x.py::test[a.b]"),
        ("test_x.py::test[a/b]", "test_x.py::test[a_b]"),
        ("test_x.py::Test::test", "test_x.py::test"),
        ("a/test_x.py::test", "test_x.py::test"),
    ],
)
def test_no_two_tests_have_the_same_folder(one: str, other: str) -> None:
    assert folder_of("6.1", one) != folder_of("6.1", other)


def test_the_folder_of_a_method() -> None:
    assert folder_of("6.1", "tests/test_x.py::Test::test_y[6.1]") == Path(
        "6.1/tests/test_x.py/Test.test_y[6.1]"
    )


@pytest.mark.parametrize(
    "files", [7, [1], {"a": 1, 2: b"", "b\0c": b"", "../out": b"", "/out": b"", "in": b"x"}, None]
)
def test_a_guest_may_send_anything_in_place_of_files(tmp_path: Path, files: Any) -> None:
    report = SimpleNamespace(
        nodeid="test_x.py::test",
        user_properties=[(KERNEL_PROPERTY, "6.1")],
        failed=True,
        when="call",
        duration=0.1,
        longrepr="no",
        sections=[],
        **{FILES: files},
    )
    Writer(SimpleNamespace(), tmp_path / "kept").pytest_runtest_logreport(report)  # type: ignore[arg-type]
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {FACTS, "report.txt"} | ({"in"} if isinstance(files, dict) else set())


def test_a_value_that_is_cut_says_so() -> None:
    everything = Text(None, None)
    assert everything.of([7] * 1000).endswith("7, 7]")
    assert everything.of([7] * 1001).endswith("7, 7, …]")
    assert everything.of(dict.fromkeys(range(1001), 0)).endswith("999: 0, …}")
    assert everything.of((1, [2], {3: "x"})) == "(1, [2], {3: 'x'})"
