"""Measures what ``--bpf-map-usage`` costs: the look at each map of an object when a test ends."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from statistics import median

import guests
import peers
from benchmark import Benchmark, Sides, now

from pytest_bpfmaps import paths
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.cost.map_recorder import MapRecorder
from pytest_bpfmaps.harness import Bpf

CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define MAP(name, kind, size) struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, size); \\
    __type(key, __u32); __type(value, __u64); } name SEC(".maps")
MAP(hash, HASH, 10240);
MAP(percpu, PERCPU_HASH, 1024);
MAP(lru, LRU_HASH, 4096);
MAP(array, ARRAY, 256);
MAP(percpu_array, PERCPU_ARRAY, 16);
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 65536); } ring SEC(".maps");
"""
SUITE = """
import pytest

@pytest.fixture(scope="module")
def loaded(bpf_module):
    made = bpf_module.load("map_usage.bpf.c")
    for name in ("hash", "percpu", "lru", "array"):
        made.maps[name].update(dict.fromkeys(range({entries}), 1))
    return made

@pytest.mark.parametrize("n", range({tests}))
def test_nothing(loaded, n):
    pass
"""
MOST_MS = 0.2
ENTRIES = 50
TURNS = 100
MAPS = 6
TESTS = 300


def looking(stack: contextlib.ExitStack) -> Sides:
    path = peers.scratch() / "map_usage.bpf.c"
    path.write_text(CODE)
    recorder = stack.enter_context(MapRecorder("host"))
    bpf = stack.enter_context(Bpf(LocalCompiler(), [path.parent], observer=recorder))
    loaded = bpf.load("map_usage.bpf.c")
    for name in ("hash", "percpu", "lru", "array"):
        loaded.maps[name].update(dict.fromkeys(range(ENTRIES), 1))

    def look() -> float:
        began = now()
        recorder.begin("test", {})
        recorder.look_at_open()
        recorder.take()
        return (now() - began) * 1e3 / len(loaded.maps)

    def read() -> float:
        began = now()
        loaded.maps.hash.snapshot()
        return (now() - began) * 1e3

    return lambda: median(look() for _ in range(TURNS)), lambda: median(read() for _ in range(TURNS))


def in_guest(stack: contextlib.ExitStack) -> Sides:
    """Measures whole commands with the option and without it: the guest, QEMU, the reports and the table."""
    kernel = guests.kernel().name
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=paths.cache_dir())))
    (folder / "map_usage.bpf.c").write_text(CODE)
    (folder / "test_maps.py").write_text(SUITE.format(entries=ENTRIES, tests=TESTS))
    guests.ours(folder, f"--bpf-kernel={kernel}")  # compiles, and saves a state

    def more() -> float:
        with_option = guests.ours(folder, f"--bpf-kernel={kernel}", "--bpf-map-usage")
        return (with_option - guests.ours(folder, f"--bpf-kernel={kernel}")) / TESTS / MAPS * 1e3

    return more, lambda: MOST_MS


BENCHMARKS = [
    Benchmark("map-usage", "ms", "snapshot of a hash", lambda peer: MOST_MS / peer, looking, lower=True),
    Benchmark("map-usage-guest", "ms", "the goal", 1, in_guest, lower=True),
]
