"""Tests which lines of a long verifier log a report shows."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.verifier.log_excerpt import excerpt

LOOP = [
    "12: (07) r1 += 1                      ; R1={n}",
    "13: (25) if r1 > 0x10 goto pc-2       ; R1={n}",
    "from 13 to 12: R1={n} R10=fp0",
]


def test_a_short_log_is_whole():
    log = "".join(f"{i}: (b7) r0 = {i}\n" for i in range(60))
    assert excerpt(log) == log


def test_first_and_last_lines_of_a_long_one():
    lines = [f"{i}: (b7) r0 = {i}" for i in range(12_835)]
    shown = excerpt("\n".join(lines)).splitlines()
    assert shown[:20] == lines[:20]
    assert shown[20] == "… 12,775 lines left out, all in error.log, or with -vv …"
    assert shown[21:] == lines[-40:]


def test_a_loop_is_shown_once():
    begin = ["0: R1=ctx() R10=fp0", "0: (b7) r1 = 0"]
    end = ["14: (95) exit", "BPF program is too large. Processed 1000001 insn"]
    loop = [line.format(n=n) for n in range(1000) for line in LOOP]
    assert excerpt("\n".join([*begin, *loop, *end])).splitlines() == [
        *begin,
        *loop[:3],
        "… the 3 lines above, 999 times more …",
        *end,
    ]


@pytest.mark.parametrize("lines", [61, 100, 5000])
@given(data=st.data())
def test_no_line_is_lost_from_the_count(lines, data):
    kinds = st.sampled_from([*LOOP, "; x @ a.c:7", "R1 !read_ok"])
    some = data.draw(st.lists(kinds, min_size=1, max_size=12))
    log = [some[i % len(some)] for i in range(lines)]
    stands_for = 0
    shown = excerpt("\n".join(log)).splitlines()
    for i, line in enumerate(shown):
        if times := re.match(r"… the (?:(\d+) lines|line) above, ([\d,]+) times", line):
            stands_for += int(times[1] or 1) * int(times[2].replace(",", ""))
        elif left := re.match(r"… ([\d,]+) lines left", line):
            stands_for += int(left[1].replace(",", ""))
        else:
            stands_for += 1
            assert i or line == log[0]
    assert stands_for == len(log)
    assert len(shown) <= 61


@pytest.mark.parametrize(("length", "folded"), [(1, True), (2, True), (64, True), (65, False)])
def test_the_longest_loop_that_is_looked_for(length, folded):
    block = [f"{n}: (b7) r0 = {n}" for n in range(length)]
    first = [f"; line {n}" for n in range(20)]  # the number of first lines that are shown
    shown = excerpt("\n".join([*first, *block * 60, "exit"])).splitlines()
    what = "the line above" if length == 1 else f"the {length} lines above"
    assert (f"… {what}, 59 times more …" in shown[-2:]) is folded


def test_what_comes_three_times_is_a_loop_and_what_comes_twice_is_none():
    single = [f"{n}: (07) r1 += {n}" for n in range(40)]
    twice, three = ["90: (95) exit", "91: (b7) r0 = 0"] * 2, ["95: (95) exit"] * 3
    shown = excerpt("\n".join([*single, *single, *single, *twice, *three])).splitlines()
    assert shown[-6:] == [*twice, "95: (95) exit", "… the line above, 2 times more …"]
