"""Rewrite packets in tc. Clients reach at port 80 a server that listens on port 8080."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("sched_cls")


@pytest.fixture
def cable(bpf_netns):
    return bpf_netns("client").veth_to(bpf_netns("server"))


def test_a_connection_through_rewritten_ports(bpf, cable):
    rewriter = bpf.load("rewrite_port.bpf.c")
    rewriter.programs.arriving.attach(interface=cable.far, direction="ingress")
    rewriter.programs.leaving.attach(interface=cable.far, direction="egress")
    address = str(cable.far.ipv4)

    with cable.far.enter():
        server = socket.create_server((address, 8080))
    with server, cable.near.enter(), socket.create_connection((address, 80), timeout=60) as client:
        session, _ = server.accept()
        with session:
            client.sendall(b"question")
            assert session.recv(100) == b"question"
            session.sendall(b"answer")
            assert client.recv(100) == b"answer"
            assert client.getpeername() == (address, 80)
            assert session.getsockname() == (address, 8080)


def test_other_ports_stay(bpf, cable):
    rewriter = bpf.load("rewrite_port.bpf.c", globals={"public_port": 443})
    rewriter.programs.arriving.attach(interface=cable.far, direction="ingress")
    with cable.near.enter(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((str(cable.far.ipv4), 80), timeout=60)
