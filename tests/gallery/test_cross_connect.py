"""Redirect between two interfaces. Client and server talk through a namespace that has no routes."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("sched_cls", "hash")


def test_two_namespaces_talk_through_a_third(bpf, bpf_netns):
    client, switch, server = bpf_netns("client"), bpf_netns("switch"), bpf_netns("server")
    left = client.veth_to(switch, addresses=[("192.0.2.1/24", None)]).far
    right = server.veth_to(switch, addresses=[("192.0.2.2/24", None)]).far

    joined = bpf.load("cross_connect.bpf.c")
    joined.maps.way_out[left.index] = right.index
    joined.maps.way_out[right.index] = left.index
    for port in (left, right):
        joined.programs.cross_connect.attach(interface=port, direction="ingress")

    with server.enter():
        listening = socket.create_server(("192.0.2.2", 80))
    with listening, client.enter(), socket.create_connection(("192.0.2.2", 80), timeout=60) as connection:
        assert connection.getsockname()[0] == "192.0.2.1"
        listening.accept()[0].close()

    joined.maps.way_out.clear()
    with client.enter(), pytest.raises(TimeoutError):
        socket.create_connection(("192.0.2.2", 80), timeout=0.5)
