"""Keep only recent clients. A full LRU hash removes old elements, and refuses no new one."""

import os
import time

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "lru_hash", "lru_percpu_hash")


def packet_from(client):
    """Returns an Ethernet frame with an IPv4 header from the client with that number."""
    return bytes(12) + b"\x08\x00\x45" + bytes(11) + client.to_bytes(4, "little") + bytes(34)


@pytest.fixture
def one_cpu():
    """Keeps the test on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_each_client_has_its_last_time_and_its_bytes(bpf):
    table = bpf.load("recent_clients.bpf.c")
    before = time.monotonic_ns()
    table.programs.remember.run(packet_from(7), repeat=3)
    table.programs.remember.run(packet_from(8))

    assert set(table.maps.last_seen) == {7, 8}
    assert before < table.maps.last_seen[7] <= table.maps.last_seen[8] <= time.monotonic_ns()
    assert table.maps.bytes.sum() == {7: 3 * 64, 8: 64}


@pytest.mark.usefixtures("one_cpu")  # the kernel removes elements that the same CPU inserted, even new ones
def test_old_clients_make_room(bpf):
    table = bpf.load("recent_clients.bpf.c", max_entries={"last_seen": 256, "bytes": 256})
    for client in range(600):
        table.programs.remember.run(packet_from(client))
        assert client in table.maps.last_seen  # the kernel never refuses it

    assert len(table.maps.last_seen) <= 256
    assert 0 not in table.maps.last_seen
