"""Choose the program that handles a packet with tail calls through a program array."""

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "prog_array")

ICMP, TCP, UDP = 1, 6, 17
XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3


def packet(protocol):
    """Returns an Ethernet frame with an IPv4 header."""
    return bytes(12) + b"\x08\x00" + b"\x45" + bytes(8) + bytes([protocol]) + bytes(10)


def test_packets_go_to_the_program_of_their_protocol(bpf):
    obj = bpf.load("dispatcher.bpf.c")
    handlers, dispatch = obj.maps.handlers, obj.programs.dispatch
    handlers[TCP] = obj.programs.refuse
    handlers[ICMP] = obj.programs.reflect

    verdicts = {protocol: dispatch.run(packet(protocol)).retval for protocol in (TCP, ICMP, UDP)}

    assert verdicts == {TCP: XDP_DROP, ICMP: XDP_TX, UDP: XDP_PASS}
    assert handlers == {TCP: obj.programs.refuse, ICMP: obj.programs.reflect}

    del handlers[TCP]
    assert dispatch.run(packet(TCP)).retval == XDP_PASS
