"""Trace executed programs through a ring buffer."""

import os
import subprocess
import time

import pytest

pytestmark = pytest.mark.bpf_requires("tracepoint/sched/sched_process_exec", "ringbuf")


def test_exec_sends_an_event(bpf):
    tracer = bpf.load("exec_events.bpf.c")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    with tracer.attach(), tracer.maps.events.capture("event") as events:
        child = subprocess.Popen(["/bin/true"])
        events.expect(pid=child.pid, comm="true", count=1)
        child.wait()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    (event,) = [e for e in events if e.pid == child.pid]
    assert before < event.timestamp < after


def test_events_come_in_order(bpf):
    tracer = bpf.load("exec_events.bpf.c")
    with tracer.attach(), tracer.maps.events.capture() as events:
        for program in ("true", "false", "uname"):
            subprocess.run([f"/bin/{program}"], stdout=subprocess.DEVNULL, check=False)
        events.wait(count=3)

    mine = [e.comm for e in events if e.comm in ("true", "false", "uname")]
    assert mine == ["true", "false", "uname"]


def test_nothing_is_executed_by_a_file_read(bpf):
    tracer = bpf.load("exec_events.bpf.c")
    with tracer.attach(), tracer.maps.events.capture() as events:
        open("/dev/null").close()
        events.expect_none(pid=os.getpid())
