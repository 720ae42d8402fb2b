"""Ask a bloom filter before a hash."""

import sys
from ipaddress import ip_address

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "bloom_filter")


def packet_from(address):
    """Returns an Ethernet frame with an IPv4 header."""
    return bytes(12) + b"\x08\x00" + b"\x45" + bytes(11) + ip_address(address).packed + bytes(4)


def test_strangers_do_not_reach_the_hash(bpf):
    obj = bpf.load("seen_before.bpf.c")
    client = int.from_bytes(ip_address("192.0.2.1").packed, sys.byteorder)
    obj.maps.clients[client] = 0
    obj.maps.maybe_known.push(client)
    assert client in obj.maps.maybe_known

    for address in ("192.0.2.1", "198.51.100.7", "192.0.2.1"):
        obj.programs.count.run(packet_from(address))

    assert obj.maps.clients == {client: 2}
    assert obj.globals.strangers == 1
