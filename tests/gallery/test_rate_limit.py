"""Limit clients with a hash of maps. Each client has its own map, which can be replaced as a whole."""

import sys
from ipaddress import ip_address

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "hash_of_maps")

UDP = 17
XDP_DROP, XDP_PASS = 1, 2
CLIENT, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def packet_from(address):
    """Returns an Ethernet frame with an IPv4 header for UDP."""
    return bytes(12) + b"\x08\x00" + b"\x45" + bytes(8) + bytes([UDP, 0, 0]) + address.packed + bytes(4)


def test_a_client_has_a_map_of_its_own(bpf):
    limiter = bpf.load("rate_limit.bpf.c", globals={"limit": 2})
    clients, limit = limiter.maps.clients, limiter.programs.rate_limit
    key = int.from_bytes(CLIENT.packed, sys.byteorder)
    clients[key] = limiter.maps.first

    assert [limit.run(packet_from(CLIENT)).retval for _ in range(3)] == [XDP_PASS, XDP_PASS, XDP_DROP]
    assert limit.run(packet_from(OTHER)).retval == XDP_PASS
    assert clients[key][UDP] == limiter.maps.first[UDP] == 3

    clients[key] = limiter.maps.second
    assert limit.run(packet_from(CLIENT)).retval == XDP_PASS
