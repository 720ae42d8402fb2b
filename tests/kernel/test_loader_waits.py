"""Tests what is said of a program that may be attached, but of which the kernel does not tell it."""

from __future__ import annotations

import pytest

from pytest_bpfmaps import CaptureTimeoutError

SAMPLE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("perf_event") int take_sample(void *ctx) { return 0; }
"""


@pytest.mark.bpf_requires("perf_event")
def test_a_perf_event_without_a_link(bpf, agent_binary):
    command = [agent_binary, "load", bpf.compile(code=SAMPLE), "sample", "take_sample", "wait"]
    agent = bpf.start(command, ready="waiting")
    assert agent.links == []
    with pytest.raises(CaptureTimeoutError) as failed:
        agent.wait_until_attached("take_sample", timeout=0.1)
    assert "  no program is known to be attached\n" in str(failed.value)
    assert "the kernel does not tell whether 'take_sample' is attached" in str(failed.value)
    assert "Wait until it runs: agent.programs['take_sample'].run_count\n" in str(failed.value)
    bpf.wait_until(lambda: agent.programs["take_sample"].run_count, timeout=10)  # the remedy
