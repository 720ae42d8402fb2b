"""A hash map ``u32 -> u64`` with a million entries: reads it into arrays and dicts, and updates it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import peers
from benchmark import Benchmark, Sides, now

from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.harness import Bpf

COUNT = 1_000_000
CODE = f"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {{
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, {COUNT});
    __type(key, __u32);
    __type(value, __u64);
}} counts SEC(".maps");
char LICENSE[] SEC("license") = "GPL";
"""
_made: list[tuple[Any, dict[int, int]]] = []


def full_map(stack: contextlib.ExitStack) -> tuple[Any, dict[int, int]]:
    """Returns the map and its content. All benchmarks use the same map."""
    if not _made:
        bpf = stack.enter_context(Bpf(LocalCompiler()))
        contents = {k: 3 * k for k in range(COUNT)}
        counts = bpf.load(code=CODE).maps.counts
        counts.update_batch(contents)
        _made.append((counts, contents))
    return _made[0]


def rate(work: Callable[[], Any], count: int = COUNT) -> tuple[float, Any]:
    """Returns millions of elements a second, and the result of `work`."""
    began = now()
    result = work()
    return count / (now() - began) / 1e6, result


def read_arrays(stack: contextlib.ExitStack) -> Sides:
    counts, _ = full_map(stack)

    def ours() -> float:
        figure, (keys, values) = rate(counts.to_numpy)
        assert len(keys) == len(values) == COUNT
        return figure

    return ours, lambda: peers.c_figure("read_map", counts.id, COUNT)


def read_dict(stack: contextlib.ExitStack) -> Callable[[], float]:
    counts, _ = full_map(stack)

    def ours() -> float:
        def filled() -> Any:
            found = counts.snapshot()
            found.items()  # decodes everything
            return found

        figure, found = rate(filled)
        assert dict.__len__(found) == COUNT
        return figure

    return ours


def against_bcc(stack: contextlib.ExitStack) -> Sides:
    ours, bcc = read_dict(stack), peers.bcc(stack)
    bcc.ask("fill_map")
    return ours, lambda: bcc.ask("read_map")


_READ_JSON = """
import json, subprocess, sys
dump = json.loads(subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True).stdout)
found = {element["formatted"]["key"]: element["formatted"]["value"] for element in dump}
"""


def against_bpftool(stack: contextlib.ExitStack) -> Sides:
    """Measures both sides until they have a dict: something has to read what bpftool prints."""
    tool, (counts, _) = peers.bpftool(), full_map(stack)
    dump = [tool, "-j", "map", "dump", "id", str(counts.id)]
    command = [sys.executable, "-S", "-c", _READ_JSON, *dump]
    return read_dict(stack), lambda: COUNT / peers.seconds_of(command) / 1e6


def update_dict(stack: contextlib.ExitStack) -> Sides:
    counts, contents = full_map(stack)
    return (
        lambda: rate(lambda: counts.update_batch(contents))[0],
        lambda: peers.c_figure("update_map", counts.id, COUNT),
    )


def update_arrays(stack: contextlib.ExitStack) -> Sides:
    import numpy as np

    counts, _ = full_map(stack)
    keys = np.arange(COUNT, dtype=np.uint32)
    arrays = keys, keys.astype(np.uint64) * 3
    return (
        lambda: rate(lambda: counts.update_batch(arrays))[0],
        lambda: peers.c_figure("update_map", counts.id, COUNT),
    )


BENCHMARKS = [
    Benchmark("map-read-numpy", "M/s", "C batch lookup", 0.7, read_arrays),
    Benchmark("map-read-dict", "M/s", "bcc items_lookup_batch", 1.0, against_bcc),
    Benchmark("map-read-bpftool", "M/s", "bpftool -j map dump, json", 5.0, against_bpftool),
    Benchmark("map-update-dict", "M/s", "C batch update", 0.6, update_dict),
    Benchmark("map-update-numpy", "M/s", "C batch update", 0.6, update_arrays),
]
