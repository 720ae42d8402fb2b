"""Measures what a test pays before its own work: loading a cached object, and asking the cache for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import peers
from benchmark import Benchmark, Sides, now

from pytest_bpfmaps.compiler import CompileRequest, LocalCompiler
from pytest_bpfmaps.compiler.command_line import flags_for
from pytest_bpfmaps.harness import Bpf

CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");
__u64 calls;

SEC("raw_tp/sched_process_exec") int on_exec(void *ctx)
{
    __u32 key = bpf_get_current_pid_tgid() >> 32;
    __u64 one = 1;

    calls++;
    bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
    return 0;
}
char LICENSE[] SEC("license") = "GPL";
"""
ROUNDS = 30
MOST_MS = 5.0


def milliseconds(work: Callable[[], object]) -> float:
    """Returns the mean of some calls."""
    began = now()
    for _ in range(ROUNDS):
        work()
    return (now() - began) / ROUNDS * 1e3


def source(name: str) -> Path:
    path = peers.scratch() / name
    path.write_text(CODE)
    return path


def per_test(stack: contextlib.ExitStack) -> Sides:
    peers.c_peer()
    path, compiler = source("per_test.bpf.c"), LocalCompiler()

    def one_test() -> None:
        with Bpf(compiler, [path.parent]) as bpf, bpf.load("per_test.bpf.c").attach():
            pass

    one_test()
    built = compiler.compile(CompileRequest(source=str(path), include=(str(path.parent),)))
    return lambda: milliseconds(one_test), lambda: peers.c_figure("load", built, ROUNDS)


def warm_hit(stack: contextlib.ExitStack) -> Sides:
    path, compiler = source("warm_hit.bpf.c"), LocalCompiler()
    request = CompileRequest(source=str(path))
    compiler.compile(request)
    output = str(peers.scratch() / "again.o")
    clang = [compiler.clang.path, *flags_for(request), "-c", str(path), "-o", output]

    return lambda: milliseconds(lambda: compiler.compile(request)), lambda: peers.seconds_of(clang) * 1e3


BENCHMARKS = [
    Benchmark("load-attach-detach", "ms", "C", lambda peer: (peer + MOST_MS) / peer, per_test, lower=True),
    Benchmark("compile-warm", "ms", "clang", lambda peer: MOST_MS / peer, warm_hit, lower=True),
]
