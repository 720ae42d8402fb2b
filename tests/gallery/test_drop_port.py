"""Drop a port with XDP, at the end of a virtual Ethernet cable between two network namespaces."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "percpu_array")

OPEN, CLOSED = 1000, 2000
PASSED, DROPPED = 0, 1


@pytest.mark.parametrize("mode", ["skb", "native"])
def test_what_is_sent_to_the_port_does_not_arrive(bpf, bpf_netns, mode):
    cable = bpf_netns("client").veth_to(bpf_netns("server"))
    firewall = bpf.load("drop_port.bpf.c", globals={"closed_port": CLOSED})
    firewall.programs.drop_port.attach(interface=cable.far, mode=mode)

    with cable.near.enter(), socket.socket(type=socket.SOCK_DGRAM) as client, cable.far.sniff() as arrived:
        for port in (CLOSED, OPEN, CLOSED):
            client.sendto(b"to %d" % port, (str(cable.far.ipv4), port))
        arrived.wait(match=lambda packet: b"to 1000" in packet)

    assert not [packet for packet in arrived if b"to 2000" in packet]
    assert firewall.maps.packets.sum() == {PASSED: 1, DROPPED: 2}
