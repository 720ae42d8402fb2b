"""Redirect packets with a device map and a CPU map."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "devmap", "cpumap", "xskmap")

ICMP, TCP, UDP = 1, 6, 17
XDP_DROP, XDP_PASS, XDP_REDIRECT = 1, 2, 4


def packet(protocol):
    """Returns an Ethernet frame with an IPv4 header."""
    return bytes(12) + b"\x08\x00" + b"\x45" + bytes(8) + bytes([protocol]) + bytes(10)


def test_packets_go_where_the_maps_say(bpf):
    obj = bpf.load("forward.bpf.c")
    forward = obj.programs.forward
    assert [forward.run(packet(p)).retval for p in (UDP, TCP, ICMP)] == [XDP_PASS, XDP_PASS, XDP_DROP]

    obj.maps.ports[1] = "lo"  # an interface's name, or its index
    obj.maps.cpus[0] = 64  # up to 64 packets may wait for CPU 0

    assert forward.run(packet(UDP)).retval == XDP_REDIRECT
    assert forward.run(packet(TCP)).retval == XDP_REDIRECT
    assert obj.maps.ports == {1: socket.if_nametoindex("lo")}
    del obj.maps.ports[1]
    assert forward.run(packet(UDP)).retval == XDP_PASS
