"""Connect sockets inside the kernel with a sockmap and a sockhash."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("sockmap", "sockhash", "sk_skb")


def connection():
    """Both ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=60)
        return client, server.accept()[0]


def test_what_one_connection_receives_leaves_through_another(bpf):
    obj = bpf.load("echo.bpf.c")
    alice, alice_at_proxy = connection()
    bob, bob_at_proxy = connection()
    with alice, alice_at_proxy, bob, bob_at_proxy, obj.programs.echo.attach(map=obj.maps.receivers):
        obj.maps.receivers[0] = alice_at_proxy
        obj.maps.senders[alice_at_proxy.getsockname()[1]] = bob_at_proxy
        assert obj.maps.receivers == {0: alice_at_proxy}

        alice.send(b"hello")
        assert bob.recv(5) == b"hello"
