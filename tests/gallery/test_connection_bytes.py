"""Count bytes for each socket and for a cgroup. The keys are the socket and the cgroup."""

import socket

import pytest

pytestmark = pytest.mark.bpf_requires("cgroup_skb", "sk_storage", "cgroup_storage")

HEADERS = 20 + 8  # IPv4 and UDP


def test_each_socket_has_its_own_count(bpf, bpf_cgroup):
    obj = bpf.load("connection_bytes.bpf.c")
    by_socket, by_cgroup = obj.maps.by_socket, obj.maps.by_cgroup
    with obj.programs.count.attach(cgroup=bpf_cgroup), bpf_cgroup.enter():
        with (
            socket.socket(type=socket.SOCK_DGRAM) as one,
            socket.socket(type=socket.SOCK_DGRAM) as two,
            socket.socket(type=socket.SOCK_DGRAM) as receiver,
        ):
            receiver.bind(("127.0.0.1", 0))
            one.sendto(bytes(100), receiver.getsockname())
            two.sendto(bytes(10), receiver.getsockname())
            two.sendto(bytes(10), receiver.getsockname())

            assert by_socket[one] == {"packets": 1, "bytes": 100 + HEADERS}
            assert by_socket[two] == {"packets": 2, "bytes": 2 * (10 + HEADERS)}
            assert receiver not in by_socket
        assert by_cgroup[bpf_cgroup] == {"packets": 3, "bytes": 120 + 3 * HEADERS}
