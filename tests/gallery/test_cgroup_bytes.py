"""Count bytes per cgroup. The test's own traffic has a cgroup of its own, so nothing else is counted."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("cgroup_skb", "hash")

HEADERS = 20 + 8  # bytes: IPv4, UDP


def talk(size):
    """Sends that many bytes to this process."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(bytes(size), sock.getsockname())
        sock.recv(size)


def test_each_cgroup_has_its_own_count(bpf, bpf_netns, bpf_cgroup):
    counter = bpf.load("cgroup_bytes.bpf.c")
    for program in counter.programs:
        program.attach(cgroup=bpf_cgroup)
    parent, child = bpf_cgroup, bpf_cgroup.child("child")

    with bpf_netns().enter():
        talk(5000)  # outside of the cgroup
        with parent.enter():
            talk(100)
            with child.enter():
                talk(1000)
                talk(1000)

    once, twice = 100 + HEADERS, 2 * (1000 + HEADERS)
    assert counter.maps.by_cgroup == {
        parent.id: {"sent": once, "received": once},
        child.id: {"sent": twice, "received": twice},
    }
