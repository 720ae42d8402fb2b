"""Write a TCP congestion control in BPF, and use it, with struct_ops."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("struct_ops", map_type="struct_ops")


def test_a_connection_uses_our_congestion_control(bpf):
    control = bpf.load("congestion.bpf.c")
    with control.attach(), socket.socket() as connection:
        assert control.maps.fixed_window.state.name == "INUSE"
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bpfmaps_fixed")
        with socket.create_server(("127.0.0.1", 0)) as server:
            connection.connect(server.getsockname())
    assert control.globals.connections == 1
