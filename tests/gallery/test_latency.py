"""Measure how long calls take, with a histogram in a per-CPU array."""

import os
import time

import pytest

pytestmark = pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_clock_nanosleep", "percpu_array")

MILLISECOND = 1_000_000  # nanoseconds


def test_sleeps_are_in_the_slots_of_their_length(bpf):
    meter = bpf.load("latency.bpf.c", globals={"target_pid": os.getpid()})
    with meter.attach():
        for _ in range(5):
            time.sleep(0.001)

    histogram = {slot: calls for slot, calls in meter.maps.histogram.sum().items() if calls}
    assert sum(histogram.values()) == 5
    assert all(2 ** (slot + 1) > MILLISECOND for slot in histogram)


def test_other_processes_are_not_measured(bpf):
    meter = bpf.load("latency.bpf.c", globals={"target_pid": os.getppid()})
    with meter.attach():
        time.sleep(0.001)

    assert meter.maps.began == {}
