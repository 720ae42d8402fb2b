"""Tests what `program.verifier` tells, against bpftool and against the kernel's own counts."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from installed import installed

from pytest_bpfmaps import ClosedError

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
WALKED = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 16); __type(key, __u32);
__type(value, __u64); } counts SEC(".maps");
const volatile __u32 rounds = 8;
static __attribute__((noinline)) __u64 inner(__u32 key)
{
    char room[64] = {};
    __u64 *value = bpf_map_lookup_elem(&counts, &key);
    room[key & 63] = 1;
    bpf_trace_printk(room, 8);
    return value ? *value : room[3];
}
__attribute__((noinline)) int global_one(__u32 n)
{
    return n + inner(n);
}
SEC("xdp") int sum(struct xdp_md *ctx)
{
    __u64 total = 0;
    for (__u32 i = 0; i < rounds && i < 100; i++) { // the loop
        if (bpf_get_prandom_u32() & 1)
            total += inner(i & 15); // the call
        else
            total += 2;
    }
    return total & 1 ? global_one(total & 3) : XDP_DROP;
}
SEC("xdp") int tiny(struct xdp_md *ctx) { return XDP_PASS; }
"""
FIGURES = re.compile(
    r"stack depth (\S+).*\n(?:insns .*\n)?"
    r"processed (\d+) insns \(limit 1000000\) max_states_per_insn (\d+) total_states (\d+) peak_states (\d+)"
)


@pytest.fixture
def bpftool():
    """Returns a function that loads an object by bpftool, and gives all that bpftool and libbpf say."""
    command = installed("bpftool")

    def load(path, pin):
        done = subprocess.run(
            [command, "-d", "prog", "loadall", str(path), str(pin)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return load


@pytest.fixture
def walked(bpf):
    """Returns the path of the object with these programs."""
    return bpf.compile(code=HEAD + WALKED)


def test_figures_are_those_that_bpftool_shows(bpf, walked, bpftool):
    text = bpftool(walked, bpf.pin_root / "programs")
    shown = [(m[1], *map(int, m.groups()[1:])) for m in FIGURES.finditer(text)]
    mine = [
        (
            "+".join(map(str, v.stack_depths.values())),
            v.instructions,
            v.max_states_per_insn,
            v.total_states,
            v.peak_states,
        )
        for v in (program.verifier for program in bpf.load(walked).programs)
    ]
    assert len(mine) == 2
    assert mine == shown
    together = [int(m) for m in re.findall(r"^stack depth .* max (\d+)$", text, re.MULTILINE)]
    told = [p.verifier.stack_together for p in bpf.load(walked).programs]
    assert told == (together or [None, None])


def test_figures_of_functions_and_sizes(bpf, walked):
    stats = bpf.load(walked).programs.sum.verifier
    assert list(stats.stack_depths) == ["sum", "inner", "global_one"]
    assert stats.stack_depths["inner"] >= 64
    assert stats.time_us >= 0
    listed = json.loads(bpf_tool_json("prog", "show", "id", str(bpf.load(walked).programs.sum.id)))
    assert (stats.translated_size, stats.jited_size) == (
        listed["bytes_xlated"],
        listed["bytes_jited"] if listed["jited"] else None,
    )


def bpf_tool_json(*arguments):
    command = installed("bpftool")
    return subprocess.run([command, "-j", *arguments], capture_output=True, text=True, check=True).stdout


def test_lines_are_all_that_the_verifier_processed(bpf, walked, bpftool):
    obj = bpf.load(walked)
    text = bpftool(walked, bpf.pin_root / "programs")
    for program in obj.programs:
        stats = program.verifier
        assert stats.walk.instructions == stats.instructions  # the kernel's own count
        assert sum(line.instructions for line in stats.walk.lines) == stats.instructions
    stats = obj.programs.sum.verifier
    assert len(stats.lines) == 10
    loop = stats.lines[0]
    assert (loop.text, loop.function) == (
        "for (__u32 i = 0; i < rounds && i < 100; i++) { // the loop",
        "sum",
    )
    assert WALKED.splitlines()[loop.line - 1 - HEAD.count("\n")].strip() == loop.text
    # counted in bpftool's log by eye: an instruction belongs to the last text in front of it
    (calls,) = (line for line in stats.walk.lines if "// the call" in line.text)
    begun = text[text.index("prog 'sum': -- BEGIN PROG LOAD LOG") :]
    assert calls.instructions == steps_below(begun[: begun.index("-- END PROG")], "// the call")


def steps_below(log, wanted):
    """Counts the steps below a C line, and those that end at once because the state is known there."""
    counted, at, of_line = 0, False, set()
    lines = log.splitlines()
    begin = next(n for n, line in enumerate(lines) if re.match(r"\d+: (R\d|frame\d)", line))
    for line in lines[begin:]:
        if line.startswith("; "):
            at = wanted in line
        step = re.match(r"(\d+): \(", line)
        if step and at:
            of_line.add(step[1])
            counted += 1
    return counted + sum(
        1
        for n in re.findall(r"^(?:from \d+ to )?(\d+)(?: \(.*\))?: safe$", log, re.MULTILINE)
        if n in of_line
    )


@pytest.mark.parametrize("rounds", [0, 5, 60])
def test_a_loop_is_walked_as_often_as_it_runs(bpf, rounds):
    code = """
    const volatile __u32 rounds = 3;
    SEC("xdp") int turns(struct xdp_md *ctx)
    {
        __u32 sum = 0;
        for (__u32 i = 0; i < rounds; i++) {
            sum += bpf_get_prandom_u32();
        }
        return sum & 1;
    }
    """
    stats = bpf.load(code=HEAD + code, globals={"rounds": rounds}).programs.turns.verifier
    if not rounds:
        assert stats.loops == ()
        return
    (loop,) = stats.loops
    assert (loop.visits, loop.text, loop.function) == (
        rounds,
        "for (__u32 i = 0; i < rounds; i++) {",
        "turns",
    )


def test_settings_are_those_of_the_load(bpf):
    """The second load has the same values of variables, sizes of maps and types of programs."""
    code = """
    struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
             __type(value, __u64); } few SEC(".maps");
    const volatile __u32 mode = 0;
    __u32 before = 1;
    SEC("xdp") int typed(struct xdp_md *ctx)
    {
        __u32 key = 5;
        __u64 *value = bpf_map_lookup_elem(&few, &key);
        if (mode == 7)
            return value ? *value : before;
        return bpf_get_prandom_u32(); // never
    }
    """
    obj = bpf.load(code=HEAD + code, globals={"mode": 7}, max_entries={"few": 9})
    stats = obj.programs.typed.verifier
    assert stats.walk.instructions == stats.instructions
    assert not any("never" in line.text for line in stats.walk.lines)


@pytest.mark.bpf_requires(kfunc="bpf_arena_alloc_pages", clang="__BPF_FEATURE_ADDR_SPACE_CAST")
def test_an_arena_does_not_hinder_the_second_load(bpf):
    stats = bpf.load("shared_list.bpf.c").programs
    for program in stats:
        assert program.verifier.walk.instructions == program.verifier.instructions


def test_a_second_load_leaves_nothing_behind(bpf, walked):
    obj = bpf.load(walked)
    before = open_ids()
    assert obj.programs.sum.verifier.lines
    assert open_ids() == before


def open_ids():
    """Returns the descriptors of this process that are programs or maps."""
    links = (os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return sorted(link for link in links if "bpf" in link)


def test_pins_stay_as_they_are(bpf):
    code = """
    struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
             __type(value, __u64); __uint(pinning, LIBBPF_PIN_BY_NAME); } kept SEC(".maps");
    SEC("xdp") int reads(struct xdp_md *ctx)
    {
        __u32 key = 0;
        __u64 *value = bpf_map_lookup_elem(&kept, &key);
        return value ? *value : 0;
    }
    """
    obj = bpf.load(code=HEAD + code)
    obj.maps.kept.unpin()
    obj.maps.kept[0] = 5
    assert obj.programs.reads.verifier.lines
    assert not (bpf.pin_root / "kept").exists()
    assert obj.maps.kept[0] == 5


def test_lines_of_a_closed_object(bpf, walked):
    obj = bpf.load(walked)
    stats = obj.programs.sum.verifier
    obj.close()
    assert stats.instructions > 2
    with pytest.raises(ClosedError):
        _ = stats.lines


def test_the_whole_log_has_each_step(bpf, walked):
    stats = bpf.load(walked).programs.tiny.verifier
    step = re.compile(r"^0: \((?:b7\) r|b4\) w)0 = 2", re.MULTILINE)  # clang 20 and later use w0
    assert step.search(stats.whole_log)
    assert not step.search(stats.log)
