"""Tests that the report names programs without counters: those of an agent, and those of ``bpf_collect``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from coverage_suite import measured_suite, run

pytestmark = pytest.mark.bpf_requires("xdp")

AGENT = """
import time
from pathlib import Path
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.harness import Bpf

with Bpf(LocalCompiler(), [Path.cwd()]) as bpf:
    bpf.load("judge.bpf.c")
    print("ready", flush=True)
    time.sleep(600)
"""
TESTS = """
import sys

def test_agent(bpf):
    agent = bpf.start([sys.executable, "agent.py"], ready="ready")
    ENDED
"""
COLLECTED = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpfmaps_expect.h>
char LICENSE[] SEC("license") = "GPL";

SEC("xdp") __success __retval(2) int passes(struct xdp_md *ctx) { return XDP_PASS; }
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return measured_suite(pytester, monkeypatch)


@pytest.mark.parametrize("ended", ["", "agent.terminate(); agent.wait(60)"], ids=["runs", "has_ended"])
def test_programs_of_an_agent(suite: pytest.Pytester, ended: str) -> None:
    suite.makepyfile(agent=AGENT, test_small=TESTS.replace("ENDED", ended))
    result = run(suite, "--bpf-kernel=host")
    result.assert_outcomes(passed=1)
    said = " ".join(result.stdout.str().split())
    name = Path(sys.executable).name
    assert f"not measured: judge of (loaded by {name}): counters: another process loaded it; blocks: " in said


def test_all_observers_at_once(suite: pytest.Pytester) -> None:
    suite.makepyfile(agent=AGENT, test_small=TESTS.replace("ENDED", ""))
    result = run(suite, "--bpf-kernel=host", "--bpf-cost=costs", "--bpf-map-usage", "--bpf-map-warnings")
    result.assert_outcomes(passed=1)


def test_programs_that_bpf_collect_takes(suite: pytest.Pytester) -> None:
    (suite.path / "collected.bpf.c").write_text(COLLECTED)
    suite.makeini("[pytest]\nbpf_collect = *.bpf.c\n")
    result = run(suite, "--bpf-kernel=host", "collected.bpf.c", "test_small.py")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["measured: 1 program by counters", "not measured: passes of collected.bpf.c: counters: bpf_collect*"]
    )
