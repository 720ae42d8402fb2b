"""Measure how long calls take, with a histogram in a per-CPU array."""

import time

import pytest

pytestmark = pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_clock_nanosleep", "percpu_array")

CENTISECOND = 10_000_000  # nanoseconds


def test_a_sleep_is_in_the_slot_of_its_length(bpf, bpf_process):
    sleeper = bpf_process(["sleep", "0.01"])
    meter = bpf.load("latency.bpf.c", globals={"target_pid": sleeper.pid})
    before = time.monotonic_ns()
    with meter.attach():
        sleeper.run()
    elapsed = time.monotonic_ns() - before

    ((slot, calls),) = [(n, calls) for n, calls in meter.maps.histogram.sum().items() if calls]
    assert calls == 1
    assert 2 ** (slot + 1) > CENTISECOND
    assert 2**slot <= elapsed


def test_other_processes_are_not_measured(bpf, bpf_process):
    sleeper, other = bpf_process(["sleep", "0.01"]), bpf_process(["sleep", "0.01"])
    meter = bpf.load("latency.bpf.c", globals={"target_pid": sleeper.pid})
    with meter.attach():
        other.run()

    assert meter.maps.began == {}
    assert not any(meter.maps.histogram.sum().values())
