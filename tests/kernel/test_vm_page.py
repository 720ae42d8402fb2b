"""Tests the page of a run in guests: what they measured arrives where the page is written."""

from __future__ import annotations

import json

import pytest
from coverage_suite import SOURCE, measured_suite, run

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

KERNEL = next((kernel.name for kernel in Catalogue()), "")
FAILS = """
def test_large(bpf):
    bpf.load("seen.bpf.c").maps.seen[1] = 2
    judge = bpf.load("judge.bpf.c").programs.judge
    assert judge.run(bytes(30)).retval.name == "XDP_PASS"
"""
MAP = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 100);
    __type(key, __u32);
    __type(value, __u32);
} seen SEC(".maps");
"""


@pytest.mark.skipif(not KERNEL, reason="needs kernel 5.10 in the catalogue: none is there")
def test_what_a_guest_measured(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = measured_suite(pytester, monkeypatch)
    suite.makepyfile(test_fails=FAILS)
    (suite.path / "seen.bpf.c").write_text(MAP)
    result = run(suite, f"--bpf-kernel={KERNEL}", "--bpf-vm-timeout=120", "--bpf-report=out")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*= BPF cost =*")  # nobody asked for them in the terminal
    result.stdout.no_fnmatch_line("*= BPF maps =*")
    result.stdout.no_fnmatch_line("not measured: *")
    page = (suite.path / "out" / "index.html").read_text()
    assert f'<code>test_fails.py::test_large</code><span class="tag">{KERNEL}</span>' in page
    assert '<td>seen.bpf.c: seen</td><td class="words">used below a tenth</td>' in page
    assert "<span>1 of 100</span>" in page
    lines = SOURCE.splitlines()
    number = lines.index("\t\treturn XDP_DROP;") + 1
    assert f'<tr id="file-1-L{number}" class="hit">' in page
    (record,) = (suite.path / "out" / "runs").iterdir()
    kept = json.loads(record.read_text())
    assert kept["outcomes"] == {KERNEL: {"passed": 1, "failed": 1}}
    assert kept["percents"] == {"": 100.0, KERNEL: 100.0}
    (cost,) = (line for line in kept["costs"] if not line.startswith("#"))
    assert cost.startswith(f"judge.bpf.c judge - {KERNEL} accepted insns=")
