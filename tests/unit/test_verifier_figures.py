"""Tests the readers of the verifier's figures and steps, and the search for loops in instructions."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.verifier.control_flow import loops, read_instructions, successors
from pytest_bpfmaps.verifier.figures import Figures, read_figures
from pytest_bpfmaps.verifier.visits import read_visits

COUNTS = (
    "processed 414 insns (limit 1000000) max_states_per_insn 2 total_states 15 peak_states 14 mark_read 3\n"
)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("verification time 7774 usec\nstack depth 0+72+8\n" + COUNTS, (7774, (0, 72, 8), None)),
        (
            "verification time 7 usec\nstack depth 0+72+8 max 80\ninsns processed 400+14\n" + COUNTS,
            (7, (0, 72, 8), 80),
        ),
        (COUNTS, (None, None, None)),
        ("a complaint without a newline" + COUNTS, (None, None, None)),
    ],
)
def test_figures_of_a_log(log, expected):
    assert read_figures(log) == Figures(414, 15, 14, 2, 3, *expected)


def test_a_log_without_figures_tells_nothing():
    assert read_figures("") == read_figures("Unreleased reference id=2\n") == Figures()


def test_the_last_figures_count():
    assert read_figures(COUNTS + COUNTS.replace("414", "9")).instructions == 9


LOG = """\
func#0 @0
subprog#0 count:
100: (b7) r6 = 1
101: (95) exit
Live regs before insn:
    100: .......... (b7) r6 = 1
99: R1=ctx() R10=fp0
; for (;;) { @ x.bpf.c:7
100: (b7) r6 = 1                        ; R6=1
mark_precise: frame0: regs=r2 stack= before 100: (bf) r2 = r8
; a @ b @ y.h:8
101: (15) if r1 == 0x0 goto pc-2      ; R1=0
from 101 to 100: safe
100: safe
from 101 to 100 (speculative execution): safe
; return x;
102: (95) exit
from 101 to 103: R0=1
"""


def test_steps_of_a_log():
    visits = read_visits(LOG)
    assert visits.counts == {100: 4, 101: 1, 102: 1}
    assert visits.total == 6
    assert visits.texts == {
        100: ("for (;;) {", "x.bpf.c", 7),
        101: ("a @ b", "y.h", 8),
        102: ("return x;", "", 0),
    }
    assert read_visits("0: (95) exit\n").texts == {0: ("", "", 0)}


def code(*instructions):
    """Makes instructions of (operation, offset, number)."""
    return b"".join(struct.pack("=BBhi", op, 0, offset, number) for op, offset, number in instructions)


MOVE, JUMP, FAR, IF, EXIT, WIDE = 0xB7, 0x05, 0x06, 0x15, 0x95, 0x18


def test_a_loop_in_a_loop():
    raw = code((MOVE, 0, 0), (MOVE, 0, 0), (MOVE, 0, 0), (IF, -2, 0), (IF, -4, 0), (EXIT, 0, 0))
    found = loops(read_instructions(raw))
    assert [(loop.head, sorted(loop.members)) for loop in found] == [(1, [1, 2, 3, 4]), (2, [2, 3])]


def test_a_jump_back_is_no_loop():
    raw = code((JUMP, 2, 0), (MOVE, 0, 0), (EXIT, 0, 0), (JUMP, -3, 0))
    assert loops(read_instructions(raw)) == []


def test_far_jumps_and_wide_instructions():
    raw = code((WIDE, 0, 0), (0, 0, 0), (MOVE, 0, 0), (FAR, 77, -2))
    after = successors(read_instructions(raw))
    assert after[0] == [2]
    assert after[3] == [2]
    assert [loop.head for loop in loops(read_instructions(raw))] == [2]


def nested(after, members):
    """Finds loops as control_flow.loops does, slowly: by what each instruction reaches among `members`."""

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            new = set(after[waiting.pop()]) & members - seen
            seen |= new
            waiting += new
        return seen

    reaches = {each: reached(each) for each in members}
    parts = {frozenset(b for b in reaches[a] if a in reaches[b]) for a in members if a in reaches[a]}
    for part in parts:
        entries = [b for a in range(len(after)) if a not in part for b in after[a] if b in part]
        head = min(entries or part)
        yield head, part
        yield from nested(after, part - {head})


@given(st.lists(st.tuples(st.sampled_from([MOVE, JUMP, IF, IF, EXIT]), st.integers(-9, 6)), max_size=14))
def test_loops_are_what_reaches_itself(parts):
    instructions = read_instructions(code(*((op, offset, 0) for op, offset in parts)))
    after = successors(instructions)
    found = [(loop.head, loop.members) for loop in loops(instructions)]
    expected = nested(after, frozenset(range(len(after))))
    assert found == sorted(expected, key=lambda loop: (loop[0], -len(loop[1])))


@given(
    st.sampled_from([0x85, 0x18, 0x05, 0x06, 0x15, 0xB7]),
    st.integers(0, 15),
    st.integers(0, 15),
    st.binary(max_size=7),
)
def test_kinds_of_instructions(operation, source, target, cut):
    """The end of the code may be cut."""
    raw = struct.pack("=BBhi", operation, source << 4 | target, -7, 9) + cut
    (one,) = read_instructions(raw)
    assert (one.code, one.source, one.offset, one.number) == (operation, source, -7, 9)
    assert one.calls_function == ((operation, source) == (0x85, 1))
    assert one.takes_address == ((operation, source) == (0x18, 4))
    assert one.jumps == (operation in (0x85, 0x05, 0x06, 0x15))
