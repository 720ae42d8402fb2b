"""Count packets in a per-CPU array, and drop large ones. The XDP program runs without a network."""

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "ringbuf")

UDP, TCP = 17, 6
XDP_DROP, XDP_PASS = 1, 2


def packet(protocol, payload=0):
    """Returns an Ethernet frame with an IPv4 header."""
    ethernet = bytes(12) + b"\x08\x00"
    ip = bytearray(20)
    ip[0], ip[9] = 0x45, protocol
    return ethernet + ip + bytes(payload)


def test_counts_packets_and_bytes_by_protocol(bpf):
    counter = bpf.load("packet_counter.bpf.c")
    for protocol in (UDP, UDP, TCP):
        assert counter.programs.count_packets.run(packet(protocol)).retval == XDP_PASS

    assert counter.maps.traffic[UDP].sum() == {"packets": 2, "bytes": 68}
    assert counter.maps.traffic[TCP].sum() == {"packets": 1, "bytes": 34}


def test_drops_what_is_too_large_and_says_so(bpf):
    counter = bpf.load("packet_counter.bpf.c", globals={"size_limit": 100})
    with counter.maps.events.capture("event") as events:
        assert counter.programs.count_packets.run(packet(UDP, payload=100)).retval == XDP_DROP
        events.expect(size=134, protocol=UDP, count=1)
    assert events == [{"size": 134, "protocol": UDP}]


def test_ignores_what_is_not_ipv4(bpf):
    counter = bpf.load("packet_counter.bpf.c")
    counter.programs.count_packets.run(bytes(64))
    assert counter.globals.ignored == 1
    assert counter.maps.traffic[UDP].sum() == {"packets": 0, "bytes": 0}
