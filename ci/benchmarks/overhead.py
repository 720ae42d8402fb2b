"""Measures what a test pays before its own work: loading a cached object, and asking the cache for it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import peers
from benchmark import Benchmark, Sides, now

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.command_line import flags_for
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
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
MOST_MS, MOST_COLLECTING = 5.0, 1.5
TESTS = """
import pytest

@pytest.mark.parametrize("n", range(1000))
def test_many(bpf, n):
    pass
"""


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


def collecting(stack: contextlib.ExitStack) -> Sides:
    """Measures 20,000 tests that use the fixture `bpf`, and are not run. pytest alone has another fixture."""
    folder = peers.scratch() / "collecting"
    folder.mkdir(exist_ok=True)
    for n in range(20):
        (folder / f"test_{n}.py").write_text(TESTS)
    (folder / "fixture_alone.py").write_text("import pytest\n@pytest.fixture\ndef bpf(): pass\n")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    alone = [*command, "-p", "no:bpfmaps", "-p", "fixture_alone"]

    def measured(command: list[str]) -> Callable[[], float]:
        return lambda: peers.seconds_of(command, folder)

    return measured([*command, "--bpf-kernel=host"]), measured(alone)


BENCHMARKS = [
    Benchmark("load-attach-detach", "ms", "C", lambda peer: (peer + MOST_MS) / peer, per_test, lower=True),
    Benchmark("collect-20000", "s", "pytest alone", MOST_COLLECTING, collecting, lower=True),
    Benchmark("compile-warm", "ms", "clang", lambda peer: MOST_MS / peer, warm_hit, lower=True),
]
