"""Tests the fixture `bpf_benchmark`: times on a real CPU, executed instructions in guests."""

from __future__ import annotations

import json

import pytest

from pytest_bpfmaps import NoValueError, paths
from pytest_bpfmaps.kernel.release import is_emulated
from pytest_bpfmaps.kernel.run_counts import RunStatistics
from pytest_bpfmaps.report.benchmark_table import lines, show

CACHE = paths.cache_dir()  # read before pytester changes HOME
CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
unsigned rounds;
SEC("xdp") int loop(struct xdp_md *ctx)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < rounds && i < 600; i++)
        asm volatile("%0 += 3" : "+r"(sum)); // the compiler can't work the sum out
    return sum == 1 ? XDP_DROP : XDP_PASS;
}
SEC("xdp") int one(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int jumpy(struct xdp_md *ctx)
{
    unsigned turns = bpf_get_prandom_u32() & 127;
    for (unsigned i = 0; i < turns; i++)
        asm volatile("" ::: "memory"); // the compiler can't leave the loop out
    return XDP_PASS;
}
SEC("syscall") int asked(void *ctx) { return 0; }
"""
PACKET = bytes(64)


@pytest.mark.bpf_requires("xdp")
def test_what_another_process_adds_is_told(bpf, bpf_benchmark):
    one = bpf.load(code=CODE, programs=["one"]).programs.one
    with RunStatistics():  # as another process that counts runs
        found = bpf_benchmark(one, PACKET)
    if is_emulated():
        assert (found.ns, found.note) == (None, "")
        return
    assert "another process" in found.note
    shown = lines([("test_x", {"program": "one", "ns": found.ns, "note": found.note})])
    assert shown[-1] == f"ns per run of one: {found.note}"


@pytest.mark.bpf_requires("xdp")
def test_repeated_runs_are_counted(bpf):
    one = bpf.load(code=CODE, programs=["one"]).programs.one
    one.run(PACKET)
    one.run(PACKET, repeat=500)
    assert one.counted_runs == 501


@pytest.mark.bpf_requires("xdp")
def test_times_of_repeated_runs(bpf, bpf_benchmark):
    programs = bpf.load(code=CODE, globals={"rounds": 600}, programs=["loop", "one"]).programs
    short, long = bpf_benchmark(programs.one, PACKET), bpf_benchmark(programs.loop, PACKET)
    assert (short.program, long.program) == ("one", "loop")
    if is_emulated():
        assert short.ns is None
        assert "emulated" in short.why_no_ns
        return
    assert short.ns < long.ns  # the kernel's own figure, of no turns and of 600
    assert long.runs >= 7
    assert long.spread >= 0


@pytest.mark.bpf_requires("xdp")
@pytest.mark.skipif("not is_emulated()", reason="this kernel runs on a real CPU, where QEMU counts nothing")
def test_instructions_are_exact(bpf, bpf_benchmark):
    loaded = bpf.load(code=CODE, programs=["loop", "one", "jumpy"])
    found = {}
    for rounds in (0, 1, 2, 3, 500):
        loaded.globals.rounds = rounds
        found[rounds] = bpf_benchmark(loaded.programs.loop, PACKET).instructions
        assert found[rounds] == bpf_benchmark(loaded.programs.loop, PACKET).instructions
    one_turn = found[2] - found[1]
    assert 2 <= one_turn <= 40
    assert found[3] - found[2] == one_turn
    assert found[500] - found[3] == 497 * one_turn
    changing = bpf_benchmark(loaded.programs.jumpy, PACKET)
    assert changing.instructions is None
    assert "another number in each run" in changing.why_no_instructions
    with pytest.raises(NoValueError, match="another number in each run"):
        bpf_benchmark.instructions(loaded.programs.jumpy, lambda: loaded.programs.jumpy.run(PACKET))
    loaded.globals.rounds = 3
    assert (
        bpf_benchmark.instructions(loaded.programs.loop, lambda: loaded.programs.loop.run(PACKET)) == found[3]
    )


@pytest.mark.bpf_requires("xdp")
@pytest.mark.skipif("not is_emulated()", reason="this kernel runs on a real CPU, where QEMU counts nothing")
def test_one_instruction_more_is_seen(bpf, bpf_benchmark):
    """The kernel's own length of the machine code is the oracle: this program has no branch."""

    def count(statements):
        code = CODE + f'SEC("xdp") int plain(struct xdp_md *ctx) {{ __u64 x = 0; {statements} return x; }}'
        plain = bpf.load(code=code, programs=["plain"]).programs.plain
        return bpf_benchmark(plain, PACKET).instructions

    add = 'asm volatile("%0 += 1" : "+r"(x));'
    counts = [count(add * times) for times in range(4)]
    assert [n - counts[0] for n in counts] == [0, 1, 2, 3]


@pytest.mark.bpf_requires("xdp")
def test_what_is_unknown_says_why(bpf, bpf_benchmark):
    if not is_emulated():
        program = bpf.load(code=CODE, programs=["one"]).programs.one
        found = bpf_benchmark(program, PACKET)
        assert found.instructions is None
        assert "emulated guests only" in found.why_no_instructions
        with pytest.raises(NoValueError, match="emulated guests only"):
            bpf_benchmark.instructions(program, lambda: program.run(PACKET))


@pytest.mark.bpf_requires("xdp", "syscall")
def test_a_type_that_the_kernel_does_not_measure(bpf, bpf_benchmark):
    found = bpf_benchmark(bpf.load(code=CODE, programs=["asked"]).programs.asked)
    assert found.ns is None
    assert found.why_no_ns


@pytest.mark.bpf_requires("xdp")
def test_an_attached_program_is_measured_without_what_the_statistics_cost(bpf, bpf_benchmark):
    programs = bpf.load(code=CODE, globals={"rounds": 600}, programs=["loop", "one"]).programs
    with bpf_benchmark.attached(programs.one) as cost:
        remedies = r"it did not run\n  -> trigger its event|emulated: .*\n  -> run it on the host"
        with pytest.raises(NoValueError, match=remedies):
            _ = cost.ns
        programs.one.run(PACKET, repeat=5000)
        assert cost.runs == 5000
    programs.one.run(PACKET, repeat=7)
    assert cost.runs == 5000
    assert cost.overhead_ns > 0
    if not is_emulated():
        with bpf_benchmark.attached(programs.loop) as more:
            programs.loop.run(PACKET, repeat=2000)
        assert more.ns > 5 * cost.ns  # nearly nothing is left of the program that does nothing


@pytest.mark.bpf_requires("xdp")
def test_the_table_of_a_run(pytester, monkeypatch):
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    (pytester.path / "code.bpf.c").write_text(CODE)
    pytester.makepyfile(
        test_it="""
        def test_it(bpf, bpf_benchmark):
            bpf_benchmark(bpf.load("code.bpf.c", programs=["one"]).programs.one, bytes(64))
        """
    )
    result = pytester.runpytest_subprocess("--bpf-kernel=host")
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines(
        [
            r"test +program +ns per run +spread +runs +instructions",
            r"test_it\.py::test_it\[host\] +one +[\d,]+ +\d+\.\d% +[\d,]+ +\?",
            r"instructions are unknown: .*emulated guests only",
        ]
    )


def test_lines_of_the_table():
    assert lines(
        [("t", {"program": "p", "ns": 1234.0, "spread": 0.0123, "runs": 5000, "instructions": 7})]
    ) == [
        "test  program  ns per run  spread   runs  instructions",
        "t     p             1,234    1.2%  5,000             7",
    ]


def test_a_property_that_is_no_benchmark_is_left_out():
    class Reporter:
        def section(self, title):
            raise AssertionError(title)

    show(Reporter(), [("t", "{"), ("t", json.dumps([1])), ("t", 1)])
