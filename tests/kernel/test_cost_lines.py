"""Tests that ``--bpf-cost-check`` names the C lines that made a program grow."""

from __future__ import annotations

import re

import pytest
from caches import CACHE
from shown_blocks import shows

pytestmark = pytest.mark.bpf_requires("xdp")

SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
#define draw bpf_get_prandom_u32()
#define KEPT _Pragma("clang loop unroll(disable)")

static __always_inline unsigned mixed(unsigned value)
{
    value ^= draw; // mixes once
    return value;
}
SEC("xdp") int turns(struct xdp_md *ctx)
{
    unsigned sum = 0;
    KEPT for (unsigned i = 0; i < 4; i++)
        sum += draw; // the work
    return sum & 1;
}
SEC("xdp") int helped(struct xdp_md *ctx)
{
    return mixed(draw) & 1;
}
SEC("xdp") int branches(struct xdp_md *ctx)
{
    unsigned sum = 0, most = 40;
    KEPT for (unsigned i = 0; i < most; i++)
        sum += draw;
    return sum & 1;
}
"""
LONGER = SOURCE.replace("i < 4;", "i < 90;")
MORE_MIXED = """    value ^= draw; // mixes once
    KEPT for (unsigned i = 0; i < 9; i++)
        value += draw; // mixes more
"""
BRANCH = """most = 40;
    if (draw & 8) // decides
        most = 43;
"""
SEEDED = (
    LONGER.replace("    value ^= draw; // mixes once\n", MORE_MIXED)
    .replace("most = 40;\n", BRANCH)
    .replace("char LICENSE", "\n\n// this moves all lines\nchar LICENSE")
)


@pytest.fixture
def suite(pytester, monkeypatch):
    """Returns a function that writes the program, loads it in a run, and returns what the run prints."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    pytester.makepyfile(test_it='def test_it(bpf):\n    bpf.load("judge.bpf.c")\n')

    def run(source, *options, status=0):
        (pytester.path / "judge.bpf.c").write_text(source)
        result = pytester.runpytest_subprocess("--bpf-kernel=host", *options)
        result.assert_outcomes(passed=1)
        assert result.ret == status
        return result.stdout.str()

    return run


def below(said, program):
    """Returns the lines below a program in the table."""
    return re.search(
        rf"^judge\.bpf\.c: {program} .*\n((?:(?:judge\.bpf\.c: {program}|    ).*\n)+)", said, re.M
    )[1]


def place(text):
    """Returns how a table names the line of the seeded source that has this text."""
    (found,) = [n for n, line in enumerate(SEEDED.splitlines(), 1) if text in line]
    return f"judge.bpf.c:{found}: "


def test_regressions_are_named_at_their_lines(suite, pytester):
    suite(SOURCE, "--bpf-cost=costs")
    said = suite(SEEDED, "--bpf-cost-check=costs", status=1)
    grew = "the lines that cost more instructions than before:"
    assert said.count(grew) == 3
    assert "FAILED: 3 of 3 programs" in said
    turns, helped, branches = (below(said, name) for name in ("turns", "helped", "branches"))
    assert re.search(rf" \d+ +\d+  {re.escape(place('// the work'))}sum \+= draw; // the work$", turns, re.M)
    changed = r"KEPT for .* < 90; i\+\+\)  \(was: KEPT for .* < 4; i\+\+\)\)"
    assert re.search(rf" \d+ +\d+  {re.escape(place('< 90'))}{changed}$", turns, re.M)
    assert re.search(rf" new +\d+  {re.escape(place('// mixes more'))}value \+= draw;", helped)
    assert re.search(rf" new +\d+  {re.escape(place('// decides'))}if \(draw & 8\)", branches)
    for each in (turns, helped, branches):
        assert "LICENSE" not in each
    shows("cost.md", "(was:", said)


def test_what_is_written_and_compared(suite, pytester):
    suite(SOURCE, "--bpf-cost=costs")
    costs, lines = (pytester.path / name for name in ("costs", "costs.lines"))
    shows("cost.md", "# pytest-bpfmaps cost 1", costs.read_text())
    rows = lines.read_text().splitlines()
    assert rows[0] == "# pytest-bpfmaps cost lines 1"
    blocks = [row for row in rows[1:] if row[0] not in " #"]
    assert blocks == [f"judge.bpf.c {name} - host" for name in ("branches", "helped", "turns")]
    turns = rows[rows.index(blocks[-1]) + 1 :]
    texts = {row.split(" ", 4)[4]: int(row.split()[0]) for row in turns}
    assert f" insns={sum(texts.values())} " in costs.read_text().splitlines()[-1]
    assert texts["sum += draw; // the work"] >= 4
    assert turns == sorted(turns, key=lambda row: row.split(" ", 2)[2])

    before = [each.read_bytes() for each in (costs, lines)]
    moved = SOURCE.replace("char LICENSE", "\n// more\nchar   LICENSE")
    assert "which is unchanged" in suite(moved, "--bpf-cost=costs")
    assert [each.read_bytes() for each in (costs, lines)] == before

    suite(LONGER, "--bpf-cost=new")
    result = pytester.runpytest_subprocess("--bpf-cost-compare", "costs", "new")
    assert result.ret == 0
    assert re.search(r" \d+ +\d+  judge\.bpf\.c: sum \+= draw; // the work$", result.stdout.str(), re.M)


def test_a_file_without_lines(suite, pytester):
    suite(SOURCE, "--bpf-cost=costs")
    costs, lines = (pytester.path / name for name in ("costs", "costs.lines"))
    before, old = costs.read_text(), lines.read_text()
    lines.write_text(old.replace(" // the work", "", 1).replace(" - host\n ", " - host\n 9", 1))
    said = suite(SEEDED, "--bpf-cost-check=costs", status=1)  # the lines are of another recording
    assert "costs.lines has no lines of judge.bpf.c: branches [host]: those that cost most are shown" in said
    assert said.count("    the lines that cost most, in instructions:") == 1
    lines.unlink()
    said = suite(LONGER, "--bpf-cost-check=costs", status=1)
    assert "    the lines that cost most, in instructions:" in below(said, "turns")
    assert "costs.lines has no lines of judge.bpf.c: turns [host]: those that cost most are shown" in said
    assert "-> to see those that grew, record the code before the change again: --bpf-cost=costs" in said
    suite(SOURCE, "--bpf-cost=costs")  # the advice
    assert (costs.read_text(), lines.read_text()) == (before, old)


def test_lines_that_are_damaged(suite, pytester):
    suite(SOURCE, "--bpf-cost=costs")
    path = pytester.path / "costs.lines"
    path.write_text("<<<<<<< ours\n")
    for option in ("--bpf-cost", "--bpf-cost-check"):
        said = suite(LONGER, f"{option}=costs", status=1)
        assert re.search(r"costs from \S*costs\.lines:1: it has a conflict marker of git\n  -> ", said)
        assert path.read_text() == "<<<<<<< ours\n"


def test_c_text(suite, pytester):
    test = "def test_text(bpf):\n    bpf.load(code={!r})\n"
    pytester.makepyfile(test_it=test.format(SOURCE))
    suite("", "--bpf-cost=costs")
    pytester.makepyfile(test_it=test.format(LONGER))
    said = suite("", "--bpf-cost-check=costs", status=1)
    assert "test_it.py::test_text: turns " in said
    assert re.search(r" \d+ +\d+  .*sum \+= draw; // the work$", said, re.M)
