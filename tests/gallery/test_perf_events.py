"""Send events through perf buffers. Each CPU has one; they are older than ring buffers."""

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "perf_event_array")


def test_each_packet_is_reported(bpf):
    reporter = bpf.load("perf_events.bpf.c")
    with reporter.maps.events.capture("event") as events:
        for size in (60, 100):
            reporter.programs.report_packet.run(bytes(size))
        events.expect(size=60, count=1)
        events.expect(size=100, count=1)
    assert events[0].timestamp < events[1].timestamp
    assert events.lost == 0
