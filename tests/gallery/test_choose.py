"""Choose one of the sockets of a port with a reuseport array."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("reuseport_sockarray", "sk_reuseport")


def worker(port=0):
    """A UDP socket that shares its port."""
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.settimeout(60)
    return sock


def test_the_first_byte_names_the_worker(bpf):
    obj = bpf.load("choose.bpf.c")
    with worker() as first, worker(first.getsockname()[1]) as second, socket.socket(type=2) as client:
        obj.maps.workers[0], obj.maps.workers[1] = first, second
        assert obj.maps.workers == {0: first, 1: second}
        with obj.programs.choose.attach(socket=first):
            for packet in (b"\1one", b"\0zero", b"\1more"):
                client.sendto(packet, first.getsockname())
            assert [second.recv(9), second.recv(9), first.recv(9)] == [b"\1one", b"\1more", b"\0zero"]
