"""A test suite with one BPF program, which tests of ``--bpf-cov`` run."""

from __future__ import annotations

import pytest
from caches import CACHE

SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";

int seen;
const volatile int limit = 20;

SEC("xdp") int judge(struct xdp_md *ctx)
{
	__atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED);
	if (ctx->data_end - ctx->data > limit)
		return XDP_DROP;
	return XDP_PASS;
}
"""
TESTS = """
def test_small(bpf):
    assert bpf.load("judge.bpf.c").programs.judge.run(bytes(14)).retval.name == "XDP_PASS"
"""


def measured_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Writes the program and its test into the folder of `pytester`."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    (pytester.path / "judge.bpf.c").write_text(SOURCE)
    pytester.makepyfile(test_small=TESTS)
    return pytester


def run(suite: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Runs the suite with ``--bpf-cov``."""
    return suite.runpytest_subprocess("--bpf-cov", "-p", "no:cacheprovider", *options)
