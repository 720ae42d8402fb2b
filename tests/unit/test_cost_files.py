"""Tests cost files: what they look like, which are refused, and how two of them are compared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.cost.comparison import (
    Tolerances,
    differences,
    grown,
    near_limits,
    table,
    tolerances,
    unloaded,
)
from pytest_bpfmaps.cost.cost_file import CostFileError, merged, parse, read, text_of, write
from pytest_bpfmaps.cost.costs import Cost, Key, add, object_name
from pytest_bpfmaps.cost.variants import read_variants
from pytest_bpfmaps.verifier.walk import LineCost

KEY = Key("a.bpf.c", "entry", "-", "6.1")
COST = Cost("accepted", {"insns": 1000, "states": 50, "peak": 40, "jited": 200, "translated": 400}, (8, 72))
TEXT = """\
# pytest-bpfmaps cost 1
# object program variant kernel verdict, then figures of the verifier; sizes and stack in bytes
a.bpf.c entry - 5.10 refused insns=7
a.bpf.c entry - 6.1 accepted insns=1000 states=50 peak=40 jited=200 translated=400 stack=8+72
a.bpf.c entry large 6.1 accepted insns=2
tests/test%20x.py::test_a[1] entry - 6.1 accepted insns=2
"""


def test_the_text_of_a_file(tmp_path):
    path = tmp_path / "costs"
    costs = {
        KEY: COST,
        KEY._replace(object="tests/test x.py::test_a[1]"): Cost(figures={"insns": 2}),
        KEY._replace(variant="large"): Cost(figures={"insns": 2}),
        KEY._replace(kernel="5.10"): Cost("refused", {"insns": 7}),
    }
    assert write(path, costs) is True
    assert path.read_text() == TEXT
    assert write(path, costs) is False
    assert read(path) == costs
    assert [each.name for each in tmp_path.iterdir()] == ["costs"]


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
numbers = st.integers(0, 10**9)
costs_of_any = st.dictionaries(
    st.builds(Key, names, names, names, names),
    st.builds(
        Cost,
        st.sampled_from(["accepted", "refused"]),
        st.dictionaries(st.sampled_from(["insns", "states", "peak", "jited"]), numbers),
        st.lists(numbers).map(tuple),
    ),
)


@given(costs_of_any)
def test_any_costs_come_back(costs):
    assert parse(Path("costs"), text_of(costs)) == costs
    assert text_of(dict(reversed(costs.items()))) == text_of(costs)


def test_a_source_whose_name_is_no_text_comes_back():
    name = os.fsdecode(b"\xff.bpf.c")
    costs = {KEY._replace(object=name): Cost("accepted", {"insns": 3})}
    text = text_of(costs)
    assert "\n%FF.bpf.c " in text
    assert parse(Path("costs"), text) == costs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<<<<<<< HEAD\n" + TEXT, ":1: it has a conflict marker of git\n  -> resolve the conflict"),
        (TEXT + "=======\n", ":7: it has a conflict marker"),
        (TEXT.replace("cost 1", "cost 2"), ": it has version 2\n  -> update pytest-bpfmaps"),
        (
            TEXT.replace("insns=7", "insns=x"),
            ":3: line 3 is damaged ('insns=x' is no figure)\n  -> get the file",
        ),
        (TEXT.replace("refused", "refsed"), ":3: line 3 is damaged ('refsed' is no verdict)"),
        (TEXT.replace("stack=8+72", "stack=8+"), ":4: line 4 is damaged"),
        (TEXT[:140], ":3: line 3 is damaged (it has too few words)"),
        (TEXT + TEXT.splitlines()[2] + "\n", ":7: line 7 has the same program"),
        ("", ":1: it does not begin with"),
        ("hello\n", ":1: it does not begin with"),
        ("file_name,prog_name\nx,y\n", ": this CSV has no column total_insns\n  -> make it with: veristat"),
        ("file_name,prog_name,total_insns\nx,y,z\n", ":2: line 2 is damaged"),
    ],
)
def test_files_that_are_refused(tmp_path, text, said):
    path = tmp_path / "costs"
    path.write_text(text)
    with pytest.raises(CostFileError) as caught:
        read(path)
    assert f"cannot read costs from {path}{said}" in str(caught.value)
    assert "\n  -> " in str(caught.value)


def test_a_file_that_is_absent_and_one_of_bytes(tmp_path):
    with pytest.raises(CostFileError, match=r"(?s)No such file.*-> record it: pytest --bpf-cost="):
        read(tmp_path / "costs")
    (tmp_path / "costs").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CostFileError, match="it is no text"):
        read(tmp_path / "costs")


def test_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CostFileError, match="cannot write costs"):
        write(tmp_path / "file" / "costs", {KEY: COST})


VERISTAT = """\
file_name,prog_name,verdict,duration,total_insns,total_states,peak_states,max_states_per_insn,prog_size_jited,stack_depth
a.bpf.o,entry,success,64,1200,50,40,2,200,80
a.bpf.o,other,failure,64,3,0,0,0,0,0
"""


def test_the_csv_of_veristat(tmp_path):
    path = tmp_path / "veristat.csv"
    path.write_text(VERISTAT)
    costs = read(path)
    entry = costs[Key("a.bpf.o", "entry", "-", "*")]
    assert entry.figures == {"insns": 1200, "states": 50, "peak": 40, "max_states_per_insn": 2, "jited": 200}
    assert entry.stack == (80,)
    assert costs[Key("a.bpf.o", "other", "-", "*")].verdict == "refused"
    changed = [(c.key, c.what, c.before, c.now, c.change) for c in differences({KEY: COST}, costs)]
    assert changed == [
        (Key("a.bpf.o", "entry", "-", "*"), "instructions", "1,000", "1,200", "+20.0%"),
        (Key("a.bpf.o", "other", "-", "*"), "program", "-", "refused", "new"),
    ]


def more(**figures):
    return Cost("accepted", {**COST.figures, **figures}, COST.stack)


@pytest.mark.parametrize(
    ("now", "whats"),
    [
        (more(insns=1050), []),
        (more(insns=1051), ["instructions"]),
        (more(insns=10), []),
        (more(states=60), []),  # so few more are no growth
        (more(states=61), ["states"]),
        (Cost("accepted", COST.figures, (8, 72, 8)), ["bytes of stack"]),
        (Cost("refused", {"insns": 3}), ["verdict"]),
    ],
)
def test_what_grew(now, whats):
    assert [change.what for change in grown(KEY, COST, now, Tolerances())] == whats
    assert grown(KEY, None, now, Tolerances()) == []


def test_tolerances():
    allowed = tolerances(["7%", "a.bpf.c:entry=50", "fast_*=0"])
    assert allowed == Tolerances(7.0, (("a.bpf.c:entry", 50.0), ("fast_*", 0.0)))
    assert [allowed.of(KEY._replace(program=name)) for name in ("entry", "fast_path", "x")] == [
        50.0,
        0.0,
        7.0,
    ]
    for wrong in ("much", "x=", "-1", "nan", "x=nan%"):
        with pytest.raises(ValueError):
            tolerances([wrong])


def test_limits():
    assert near_limits(KEY, more(insns=800_000), 80) == []
    (change,) = near_limits(KEY, more(insns=800_001), 80)
    assert (change.what, change.before, change.now, change.change) == (
        "instructions",
        "limit 1,000,000",
        "800,001",
        "80% of it",
    )
    deep = Cost("accepted", {"insns": 1}, (8, 480))
    assert [c.what for c in near_limits(KEY, deep, 90)] == ["bytes of stack"]
    assert near_limits(KEY, Cost("refused", {"insns": 1_000_001}), 80) == []


def test_the_table():
    lines = (LineCost("src/a.bpf.c", 7, "x();", 1500),)
    change = grown(KEY, COST, Cost("accepted", {"insns": 2000}, (), lines), Tolerances())
    assert table(change) == [
        "program         kernel  figure        before    now   change",
        "a.bpf.c: entry  6.1     instructions   1,000  2,000  +100.0%",
        "    the lines that cost most, in instructions:",
        "       1500 a.bpf.c:7: x();",
    ]


def test_the_load_that_costs_most_counts():
    first, second = {}, {}
    for costs, order in ((first, (5, 9, 7)), (second, (9, 7, 5))):
        for insns in order:
            add(costs, KEY, Cost(figures={"insns": insns}))
    assert first == second == {KEY: Cost(figures={"insns": 9})}


def test_programs_that_a_run_did_not_load_stay_in_the_file():
    old = {KEY: COST, KEY._replace(program="b"): COST, KEY._replace(kernel="5.10"): COST}
    new = {KEY: Cost(figures={"insns": 1})}
    assert merged(old, new) == {**old, KEY: new[KEY]}
    assert list(unloaded(old, new)) == [KEY._replace(program="b")]


def test_variants():
    read = read_variants(["large: rounds=0x10, mode=FAST", "", ' x : list=[1, 2], text="a, b"'])
    assert read == {"large": {"rounds": 16, "mode": "FAST"}, "x": {"list": [1, 2], "text": "a, b"}}
    for wrong in ("large", "large:", "large: rounds", "-: x=1", ": x=1", "a b: x=1"):
        with pytest.raises(ValueError):
            read_variants([wrong])


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("a/x.bpf.c", "a/x.bpf.c", True),
        ("a/x.bpf.c", "b/x.bpf.c", False),
        ("a/x.bpf.c", "x.bpf.o", True),
        ("x.bpf.c", "y.bpf.c", False),
        ("a/x.bpf.c", "y.bpf.c", False),
    ],
)
def test_a_name_without_folders_fits_a_file_anywhere(one, other, fits):
    first, second = (KEY._replace(object=name) for name in (one, other))
    assert first.fits(second) is fits
    assert second.fits(first) is fits


def test_names_of_objects():
    root = Path("/root")
    assert object_name("n", (root / "a/x.bpf.c",), root) == "a/x.bpf.c"
    assert object_name("n", (Path("/other/x.bpf.c"), root / "y.bpf.c"), root) == "x.bpf.c + y.bpf.c"
    assert object_name("n", (root / "a/x.bpf.c",), None) == "x.bpf.c"
    assert object_name("n", (), root) == "n"


def test_a_tolerance_names_an_object_with_or_without_folders():
    key = KEY._replace(object="a/x.bpf.c")
    assert [tolerances([f"{name}:entry=20"]).of(key) for name in ("x.bpf.c", "a/x.bpf.c", "b/*")] == [
        20,
        20,
        5,
    ]
