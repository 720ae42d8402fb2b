"""Serve many ports with one socket: sk_lookup."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("sk_lookup", "sockmap")


def test_one_server_for_a_range_of_ports(bpf, bpf_netns):
    chooser, netns = bpf.load("any_port.bpf.c"), bpf_netns()
    with netns.enter(), socket.create_server(("127.0.0.1", 80)) as server:
        chooser.maps.server[0] = server
        with chooser.programs.any_port.attach(netns=netns):
            for port in (80, 7000, 7500, 7999):
                with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                    session, _ = server.accept()
                    with session:
                        assert session.getsockname() == client.getpeername() == ("127.0.0.1", port)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", 8000), timeout=60)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 7000), timeout=60)
