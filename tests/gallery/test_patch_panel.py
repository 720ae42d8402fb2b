"""Join two cables with XDP and a hash of devices."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "devmap_hash")


def test_two_hosts_on_one_wire(bpf, bpf_netns):
    alice, panel, bob = bpf_netns("alice"), bpf_netns("panel"), bpf_netns("bob")
    left = alice.veth_to(panel, addresses=[("192.0.2.1/24", None)])
    right = bob.veth_to(panel, addresses=[("192.0.2.2/24", None)])
    obj = bpf.load("patch_panel.bpf.c")
    for port, other in ((left.far, right.far), (right.far, left.far)):
        with panel.enter():
            obj.maps.wires[port.index] = other.index
        obj.programs.patch.attach(interface=port, mode="skb")

    with bob.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("192.0.2.2", 4000))
        receiver.settimeout(60)
        with alice.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", ("192.0.2.2", 4000))
        assert receiver.recv(16) == b"hello"
