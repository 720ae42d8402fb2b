"""Tests how ci/bench judges its figures, and its message when a peer is absent."""

import contextlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "ci/benchmarks"))
        yield importlib.import_module("benchmark")


def a_benchmark(benchmark, ours, peer, goal, **options):
    figures = iter(ours), iter(peer)
    start = lambda stack: tuple((lambda f=f: next(f)) for f in figures)  # noqa: E731
    return benchmark.Benchmark("x", "M/s", "C", goal, start, **options)


@pytest.mark.parametrize(
    ("ours", "goal", "lower", "met"),
    [(2.0, 0.5, False, True), (2.0, 0.6, False, False), (2.0, 0.5, True, True), (2.0, 0.4, True, False)],
)
def test_a_ratio_meets_its_goal_or_not(benchmark, ours, goal, lower, met):
    made = a_benchmark(benchmark, [ours], [4.0], goal, lower=lower)
    result = benchmark.measure(made, 1, contextlib.ExitStack())
    assert (result["ratio"], result["met"]) == (0.5, met)
    assert {"name", "ours", "peer", "peer_name", "unit", "ratio", "goal", "met"} <= result.keys()


def test_both_sides_are_medians(benchmark):
    made = a_benchmark(benchmark, [1, 50, 2], [9, 4, 1], lambda peer: peer / 8)
    result = benchmark.measure(made, 3, contextlib.ExitStack())
    assert (result["ours"], result["peer"], result["goal"]) == (2, 4, 0.5)


def test_an_absent_peer_is_said_not_invented(tmp_path):
    """An empty $PATH has no gcc."""
    command = [sys.executable, str(ROOT / "ci/benchmarks"), "--json", "--rounds", "1", "load-attach-detach"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert (result["peer"], result["ratio"], result["met"]) == (None, None, None)
    assert "apt-get install gcc" in result["absent"]


def test_the_names_are_listed():
    done = subprocess.run(
        [sys.executable, str(ROOT / "ci/benchmarks"), "--list"], capture_output=True, text=True, check=True
    )
    assert {"map-read-numpy", "ring-iterate", "load-attach-detach"} <= set(done.stdout.split())


def test_a_benchmark_that_fails_leaves_no_pytest(monkeypatch, tmp_path):
    """The tests that pytest watches fail, and it waits for changes."""
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setenv("CLANG", str(tmp_path / "missing"))
    monkeypatch.syspath_prepend(str(ROOT / "ci/benchmarks"))
    watching = importlib.import_module("watching")
    monkeypatch.setattr(subprocess, "Popen", Noted)
    with pytest.raises(RuntimeError, match=r"\d (failed|error|skipped)"):
        watching.Watched("drop_port", "--bpf-kernel=host")
    (process,) = started
    assert process.returncode is not None
    assert not [fields for fields in watching.of_session(process.pid) if fields[0] not in "ZX"]
