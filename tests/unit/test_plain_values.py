"""Tests that every value which a test writes into a report can be read later."""

from __future__ import annotations

import enum
import itertools
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import NoReturn

import execnet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.matrix.plain_reports import TITLE, plain, plain_event, sending


class Kind(enum.IntEnum):
    EXEC = 1


class Word(enum.StrEnum):
    A = "a"


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError("no")


Point = namedtuple("Point", "x y")
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=1 << 20_000, max_value=1 << 20_001)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.binary()
    | st.text(st.characters())  # lone surrogates among them
    | st.sampled_from(
        [Kind.EXEC, Word.A, Awkward(), Path("/tmp"), Point(1, 2), object, 1 << 64, bytearray(b"a")]
    )
)
HASHABLE = (
    st.integers() | st.text(st.characters()) | st.sampled_from([Kind.EXEC, Path("/a"), "/a", Point(1, 2)])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(HASHABLE, inner) | st.frozensets(HASHABLE)
    ),
)


@given(VALUES)
def test_anything_can_be_sent_and_is_the_same_on_the_other_side(value: object) -> None:
    made = plain(value, "it", [])
    assert execnet.loads(execnet.dumps(made)) == made


@given(st.dictionaries(HASHABLE, st.integers(0)))
def test_no_element_of_a_mapping_is_lost(value: dict[object, int]) -> None:
    assert sorted(plain(value, "it", []).values()) == sorted(value.values())


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(1 << 31), 1 << 64) | st.binary())
def test_what_can_be_sent_stays_as_it_is(value: object) -> None:
    notes: list[str] = []
    assert plain([value], "it", notes) == [value]
    assert notes == []


def test_a_report_says_what_was_changed() -> None:
    report = {"sections": [("Captured log", "a \udcff b")], "user_properties": [("p", Path("/tmp/x"))]}
    data = plain_event({"data": report})["data"]
    assert data["sections"][0] == ("Captured log", "a \\udcff b")
    assert data["user_properties"] == [("p", "/tmp/x")]
    assert data["sections"][1] == (
        TITLE,
        "data['sections'][0][1]: bytes that are no UTF-8 are shown as \\udc.., 80 to ff\n"
        f"data['user_properties'][0][1]: {type(Path('/')).__name__}, sent as text",
    )


def test_a_number_that_execnet_can_not_send() -> None:
    notes: list[str] = []
    assert plain(-(1 << 31) - 1, "retval", notes) == "-2147483649"
    assert notes == ["retval: int, sent as text"]


def test_values_that_contain_themselves_end() -> None:
    value: list[object] = []
    value.append(value)
    assert execnet.dumps(plain(value, "it", []))


def test_keys_that_become_alike_stay_apart() -> None:
    assert plain(OrderedDict({"/a": 1, Path("/a"): 2}), "it", []) == {
        "/a": 1,
        f"/a ({type(Path('/')).__name__} 1)": 2,
    }


def test_only_what_can_not_be_sent_is_touched() -> None:
    sent: list[dict[str, object]] = []

    def send(name: str, **facts: object) -> None:
        execnet.dumps(facts)
        sent.append(facts)

    value = [1, "a"]
    sending(send)("testreport", data=value)
    assert sent[0]["data"] is value
    sending(send)("workerfinished", workeroutput={"status": Kind.EXEC})
    assert type(sent[1]["workeroutput"]["status"]) is int  # type: ignore[index]


def refuse(*_: object) -> NoReturn:
    raise RuntimeError("no")


def odd(base: type, *methods: str, **others: object) -> type:
    return type("Odd", (base,), {**dict.fromkeys(methods, refuse), **others})


class Lying(type):
    """A class that has no name and no text."""

    __name__ = property(refuse)  # type: ignore[assignment]
    __repr__ = refuse


ODD = [
    odd(dict, "items")(a=1),
    odd(list, "__iter__")([1]),
    odd(int, "bit_length", "__int__")(5),
    odd(float, "__float__")(1.0),
    odd(bytes, "__bytes__")(b"a"),
    odd(str, "__str__", "encode")("a"),
    odd(object, "__fspath__")(),
    odd(object, __fspath__=lambda self: 5)(),
    odd(object, "__repr__", "__str__")(),
    odd(object, __class__=property(refuse))(),
    odd(object, __str__=lambda self: sys.exit(3))(),
    odd(object, __str__=lambda self: f"{self}")(),
    Lying("Odd", (), {})(),
    memoryview(b"abc")[::2],
]


@pytest.mark.parametrize("at", range(len(ODD)))
def test_no_method_of_a_value_ends_the_run(at: int) -> None:
    """Each value may also be a key, in a list, and beside others, which stay."""
    value = ODD[at]
    made = plain([value, "beside", {"key": value}, 7], "it", [])
    assert execnet.loads(execnet.dumps(made)) == made
    assert made[1::2] == ["beside", 7]
    try:
        hash(value)
    except (TypeError, RuntimeError, ValueError):
        return
    made = plain({value: "its", "other": 1}, "it", [])
    assert sorted(map(str, execnet.loads(execnet.dumps(made)).values())) == ["1", "its"]


def test_a_value_without_an_end_is_cut_off() -> None:
    shared: list[object] = [1]
    for _ in range(40):  # 2 ** 40 values, when each is written
        shared = [shared, shared]
    endless = odd(list, __iter__=lambda self: itertools.repeat(1))()
    made = plain({"endless": endless, "p": shared}, "it", [])
    assert "more than 50000 values" in repr(made)
    assert execnet.loads(execnet.dumps(made)) == made
