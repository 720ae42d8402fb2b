"""Tests files with the C lines of recorded programs, and which lines of two recordings grew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.cost.comparison import differences, grown, table, tolerances
from pytest_bpfmaps.cost.cost_file import CostFileError
from pytest_bpfmaps.cost.costs import Cost, Key
from pytest_bpfmaps.cost.line_file import (
    merged_lines,
    parse_lines,
    path_of,
    read_lines,
    text_of_lines,
    write_lines,
)
from pytest_bpfmaps.cost.line_growth import fitting, growths, shown, together
from pytest_bpfmaps.verifier.walk import LineCost

KEY = Key("a.bpf.c", "entry", "-", "6.1")
OLDER = KEY._replace(kernel="5.10")
LOOP = LineCost("/src/a.bpf.c", 9, "for (i = 0; i < 4; i++)", 8, "entry")
BODY = LineCost("/src/a.bpf.c", 10, "sum += i;", 4, "entry")
INLINED = LineCost("/include/h.h", 3, "return  x\t* 2;", 2, "entry")
TEXT = """\
# pytest-bpfmaps cost lines 1
# object program variant kernels, then C lines: instructions on each kernel, file, function, text
a.bpf.c entry - 5.10 6.1
 - 8 a.bpf.c entry for (i = 0; i < 4; i++)
 4 4 a.bpf.c entry sum += i;
 - 2 h.h entry return x * 2;
b.bpf.c entry - 6.1
 1 - - -
"""


def test_the_text_of_a_file(tmp_path):
    path = tmp_path / "costs"
    lines = {
        KEY._replace(object="b.bpf.c"): (LineCost("", 0, "", 1),),
        KEY: (BODY, INLINED, LOOP),
        OLDER: (BODY,),
    }
    assert read_lines(path) == {}
    assert write_lines(path, lines) is True
    assert path_of(path).read_text() == TEXT
    assert write_lines(path, lines) is False
    found = read_lines(path)
    assert text_of_lines(found) == TEXT
    assert {key: sum(line.instructions for line in each) for key, each in found.items()} == {
        KEY: 14,
        OLDER: 4,
        KEY._replace(object="b.bpf.c"): 1,
    }
    assert write_lines(tmp_path / "none", {}) is False
    assert [each.name for each in tmp_path.iterdir()] == ["costs.lines"]


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
lines_of_any = st.dictionaries(
    st.builds(Key, words, words, words, words),
    st.lists(st.builds(LineCost, words, st.integers(0, 9), st.text(), st.integers(0, 99), words), min_size=1),
)


@given(lines_of_any)
def test_any_lines_come_back(lines):
    text = text_of_lines(lines)
    found = parse_lines(Path("costs"), text.encode(errors="replace").decode())
    assert list(found) == sorted(lines, key=lambda key: key.order)
    for key, each in lines.items():
        assert sum(line.instructions for line in found[key]) == sum(line.instructions for line in each)
    assert text_of_lines(dict(reversed(lines.items()))) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT + ">>>>>>> theirs\n", ":9: it has a conflict marker of git\n  -> resolve the conflict"),
        (TEXT.replace("lines 1", "lines 2"), ": it has version 2\n  -> update pytest-bpfmaps"),
        ("", ":1: it does not begin with '# pytest-bpfmaps cost lines'\n  -> get the file back"),
        (TEXT.replace(" 4 4 ", " 4 x "), ":5: line 5 is damaged (invalid literal"),
        (
            TEXT.replace(" 4 4 a.bpf.c entry sum += i;", " 4 4 a.bpf.c"),
            ":5: line 5 is damaged (it has too few",
        ),
        (
            TEXT.replace("a.bpf.c entry - 5.10 6.1", "a.bpf.c entry -"),
            ":3: line 3 is damaged (it has too few",
        ),
        (TEXT.replace("b.bpf.c", "a.bpf.c"), ":7: line 7 is damaged (it has the same program"),
        (TEXT.split("\n", 3)[0] + "\n 4 a f text\n", ":2: line 2 is damaged (it has too few words)"),
    ],
)
def test_files_that_are_refused(tmp_path, text, said):
    path_of(tmp_path / "costs").write_text(text)
    with pytest.raises(CostFileError) as caught:
        read_lines(tmp_path / "costs")
    assert f"cannot read costs from {tmp_path}/costs.lines{said}" in str(caught.value)
    assert (
        f"file: delete it, then pytest --bpf-cost={tmp_path}/costs" in str(caught.value) or "update" in said
    )


def test_a_source_whose_name_is_no_text_comes_back():
    key = KEY._replace(object=os.fsdecode(b"\xff.bpf.c"))
    line = LineCost("a.bpf.c", 0, "return 0;", 1, "entry")
    assert parse_lines(Path("costs"), text_of_lines({key: [line]})) == {key: (line,)}


def test_lines_belong_to_the_figures_of_the_same_recording():
    lines = {KEY: (LOOP, BODY)}
    assert fitting(lines, KEY, Cost(figures={"insns": 12})) == (LOOP, BODY)
    assert fitting(lines, KEY, Cost(figures={"insns": 13})) == ()
    assert fitting(lines, None, Cost()) == ()
    old = Cost(figures={"insns": 12})
    new = Cost(figures={"insns": 2}, lines=(INLINED,))
    short = Cost(figures={"insns": 3}, lines=(INLINED,))  # a log that was cut off
    assert merged_lines(lines, {KEY: old, OLDER: new}) == {KEY: (LOOP, BODY), OLDER: (INLINED,)}
    assert merged_lines(lines, {KEY: new, OLDER: short}) == {KEY: (INLINED,)}
    assert merged_lines(lines, {KEY: short}) == {}


def moved(line, **changes):
    facts = {"file": line.file, "line": line.line + 7, "text": line.text, "function": line.function}
    return LineCost(**{"instructions": line.instructions, **facts, **changes})


def said(before, now):
    return [(g.line.text, g.before, g.line.instructions, g.was) for g in growths(before, now)]


def test_lines_are_compared_by_their_text():
    before = [LOOP, BODY, INLINED]
    assert said(before, [moved(line) for line in before]) == []
    assert said(before, [moved(LOOP), moved(BODY, instructions=40)]) == [("sum += i;", 4, 40, None)]
    assert said(before, [LOOP, BODY, BODY]) == [("sum += i;", 4, 8, None)]  # the line twice
    assert said(before, [moved(LOOP, file="/elsewhere/a.bpf.c", text="for (i = 0;  i < 4; i++)")]) == []


def test_a_line_that_changed_is_compared_with_what_it_was():
    longer = moved(LOOP, text="for (i = 0; i < 40; i++)", instructions=80)
    assert said([LOOP, BODY], [longer, BODY]) == [(longer.text, 8, 80, LOOP.text)]
    renamed = moved(LOOP, text="for (j = 0; j < 4; j++)")
    assert said([LOOP, BODY], [renamed, BODY]) == []
    assert said([LOOP], [moved(LOOP, function="other", instructions=9)]) == [(LOOP.text, 8, 9, None)]
    other = moved(LOOP, text="return bpf_get_smp_processor_id();")
    assert said([LOOP], [other]) == [(other.text, None, 8, None)]


def test_new_lines_are_shown_even_if_they_cost_little():
    before = [LineCost("a.c", n, f"old({n});", 10, "f") for n in range(1, 20)]
    now = [moved(line, instructions=100 + line.line) for line in before]
    now.append(LineCost("a.c", 3, "if (x)", 1, "f"))
    rows = list(shown(growths(before, now)))
    assert rows[0] == "before  now"
    assert rows[1] == "    10  119  a.c:26: old(19);"
    assert rows[11:] == ["   new    1  a.c:3: if (x)", "and 9 more lines"]


def test_lines_of_one_text_are_one():
    assert together([BODY, moved(BODY)]) == {
        ("a.bpf.c", "entry", "sum += i;"): LineCost("a.bpf.c", 10, "sum += i;", 8, "entry")
    }


def test_the_table_names_the_lines_that_grew():
    before = Cost("accepted", {"insns": 12})
    now = Cost("accepted", {"insns": 48}, (), (LOOP, moved(BODY, instructions=40)))
    (change,) = grown(KEY, before, now, tolerances([]), (LOOP, BODY))
    assert table([change])[2:] == [
        "    the lines that cost more instructions than before:",
        "    before  now",
        "         4   40  a.bpf.c:17: sum += i;",
    ]
    (change,) = differences({KEY: before}, {KEY: now}, {KEY: (LOOP, BODY)})
    assert change.lines[-1] == "     4   40  a.bpf.c:17: sum += i;"
    assert differences({KEY: before}, {KEY: now})[0].lines == ()
    deeper = Cost("accepted", {"insns": 12}, (64,), (LOOP, BODY))
    (change,) = grown(KEY, Cost("accepted", {"insns": 12}, (8,)), deeper, tolerances([]), (LOOP, BODY))
    assert change.lines == ("no line costs more instructions than before",)
