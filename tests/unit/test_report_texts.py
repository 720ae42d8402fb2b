"""Tests parts of reports that need no kernel: merged failures, folders of artifacts, long values."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_bpfmaps.matrix.items import KERNEL_PROPERTY
from pytest_bpfmaps.report.artifacts import FACTS, FILES, Writer, folder_of
from pytest_bpfmaps.report.assertions import Text
from pytest_bpfmaps.report.merged_failures import differences


def lines(*parts: str) -> str:
    return "\n".join(parts)


def test_differences_of_two_texts() -> None:
    assert differences(lines(*"abcd"), lines(*"axcd")) == ["x"]
    assert differences(lines(*"abcd"), lines(*"abxcd")) == ["x"]
    assert differences(lines(*"abcd"), lines(*"abcd")) == []
    assert differences(lines(*"abcd"), lines(*"abc")) is None
    assert differences("a\nat 0x7f12345678\nc", "a\nat 0x7f87654321\nc") == []
    assert differences(lines(*"aaaaaaaa", "b"), lines(*"xaaaaaaa", "y")) == ["x", "y"]


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
