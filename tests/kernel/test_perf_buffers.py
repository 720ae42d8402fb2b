"""Tests capturing records of perf event arrays: all CPUs, order, losses."""

import errno
import os

import pytest

from pytest_bpfmaps import CaptureTimeoutError
from pytest_bpfmaps.events import perf_buffer
from pytest_bpfmaps.kernel import open_resources

pytestmark = pytest.mark.bpf_requires("perf_event_array")

ABORTED, PASS = 0, 2


@pytest.fixture
def reporter(bpf):
    return bpf.load("perf_events.bpf.c")


def send(reporter, *sizes, cpu=None):
    program = reporter.programs.report_packet
    if cpu is None:
        return [program.run(bytes(size)).retval for size in sizes]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        return send(reporter, *sizes)
    finally:
        os.sched_setaffinity(0, before)


def test_records_are_typed_and_in_order(reporter):
    with reporter.maps.events.capture() as events:
        assert send(reporter, 14, 15, 16) == [PASS] * 3
        assert [e.size for e in events.wait(count=3)] == [14, 15, 16]
        assert events.lost == 0
    assert events[0].size == 14


def test_records_of_several_cpus_are_ordered_by_time(reporter):
    cpus = sorted(os.sched_getaffinity(0))
    with reporter.maps.events.capture("event") as events:
        for size in range(14, 34):
            send(reporter, size, cpu=cpus[size % len(cpus)])
        events.wait(count=20)
    assert [e.size for e in events] == list(range(14, 34))
    assert [e.timestamp for e in events] == sorted(e.timestamp for e in events)
    assert {e.cpu for e in events} == {cpus[size % len(cpus)] for size in range(14, 34)}


def test_losses_are_counted(reporter):
    with reporter.maps.events.capture(pages=1) as events:
        results = send(reporter, *[14] * 400, cpu=0)
        kept = len(events)
        # the kernel reports losses with the next record that has room
        assert send(reporter, 15, cpu=0) == [PASS]
        events.expect(size=15)
        assert results.count(PASS) == kept
        assert events.lost == results.count(ABORTED) > 0


def test_losses_at_the_end_are_counted(reporter, bpf_kernel):
    if bpf_kernel.version < (6, 0):
        pytest.skip("PERF_FORMAT_LOST is of Linux 6.0: try --bpf-kernel=6.1")
    with reporter.maps.events.capture(pages=1) as events:
        results = send(reporter, *[14] * 400, cpu=0)
        assert events.lost == results.count(ABORTED) > 0
        with pytest.raises(CaptureTimeoutError, match="cannot know that no record with size=15 came"):
            events.expect_none(size=15, within=0.01)
    assert events.lost == results.count(ABORTED)


def test_outside_of_a_capture_records_go_nowhere(reporter):
    assert send(reporter, 14) == [ABORTED]
    with reporter.maps.events.capture() as events:
        assert send(reporter, 15) == [PASS]
    assert send(reporter, 16) == [ABORTED]
    assert [e.size for e in events] == [15]


def test_a_missed_expectation_shows_near_misses(reporter):
    with reporter.maps.events.capture() as events:
        send(reporter, 14)
        with pytest.raises(AssertionError, match=r"(?s)size=15.*size is 14, not 15"):
            events.expect(size=15, timeout=0.02)


class CtrlC:
    """Is interrupted while it reads the head of a record."""

    def unpack_from(self, raw, at):
        raise KeyboardInterrupt


def test_ctrl_c_while_a_record_is_read(reporter, monkeypatch):
    """The C code that calls the reader can pass no exception on. It must not be lost there."""
    with reporter.maps.events.capture() as events:
        send(reporter, 14)
        with monkeypatch.context() as patch:
            patch.setattr(perf_buffer, "_SAMPLE", CtrlC())
            with pytest.raises(KeyboardInterrupt):
                len(events)
        send(reporter, 15, 16)
        assert [e.size for e in events] == [15, 16]


def test_an_impossible_size_is_refused(reporter):
    with pytest.raises(OSError, match="cannot open the perf buffers of map 'events'") as caught:
        reporter.maps.events.capture(pages=3)
    assert caught.value.errno == errno.EINVAL


def test_a_capture_that_has_ended_is_not_named_as_a_leak(reporter):
    """Descriptors get the numbers of those that are closed."""
    before = open_resources.snapshot()
    with reporter.maps.events.capture("event"):
        pass
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(16)]
    leaks = open_resources.since(before)
    for fd in others:
        os.close(fd)
    assert leaks == []
