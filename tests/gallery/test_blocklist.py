"""Block networks with a longest prefix match trie. Its keys are `ipaddress` networks."""

from ipaddress import ip_address, ip_network

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "lpm_trie")

XDP_DROP, XDP_PASS = 1, 2


def packet_from(address):
    """Returns an Ethernet frame with an IPv4 header."""
    return bytes(12) + b"\x08\x00" + b"\x45" + bytes(11) + ip_address(address).packed + bytes(4)


def test_the_longest_prefix_decides(bpf):
    blocklist = bpf.load("blocklist.bpf.c")
    networks = blocklist.maps.networks
    networks[ip_network("10.0.0.0/8")] = XDP_DROP
    networks[ip_network("10.1.2.3/32")] = XDP_PASS

    verdicts = {
        source: blocklist.programs.filter.run(packet_from(source)).retval
        for source in ("10.9.9.9", "10.1.2.3", "192.0.2.1")
    }

    assert verdicts == {"10.9.9.9": XDP_DROP, "10.1.2.3": XDP_PASS, "192.0.2.1": XDP_PASS}
    assert networks == {ip_network("10.0.0.0/8"): XDP_DROP, ip_network("10.1.2.3/32"): XDP_PASS}
