"""Watch and change TCP connections with sockops."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("sock_ops", "ringbuf")


def connect():
    """Connects this process to itself, and yields the sockets of both sides."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=60)
        return client, server.accept()[0]


def test_both_sides_of_a_connection_are_reported(bpf, bpf_netns, bpf_cgroup):
    tracer = bpf.load("handshakes.bpf.c")
    tracer.programs.handshakes.attach(cgroup=bpf_cgroup)
    with tracer.maps.events.capture("event") as events, bpf_netns().enter(), bpf_cgroup.enter():
        client, session = connect()
        ports = client.getsockname()[1], session.getsockname()[1]
        client.close()
        session.close()
        events.expect(active=True, local_port=ports[0], remote_port=ports[1], count=1)
        events.expect(active=False, local_port=ports[1], remote_port=ports[0], count=1)


def test_sockets_of_the_cgroup_get_an_option(bpf, bpf_netns, bpf_cgroup):
    setter = bpf.load("handshakes.bpf.c", globals={"patience": 5000})
    setter.programs.handshakes.attach(cgroup=bpf_cgroup)
    with bpf_netns().enter(), bpf_cgroup.enter():
        client, session = connect()
    with client, session:
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
        assert session.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
