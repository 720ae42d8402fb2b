"""Sum the traffic of each pair of addresses over all CPUs, with a per-CPU hash."""

import os
from ipaddress import ip_address

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "percpu_hash")

ALICE, BOB = (ip_address(a).packed for a in ("192.0.2.1", "192.0.2.2"))


def packet(source, destination, size=64):
    """Returns an Ethernet frame with an IPv4 header."""
    return (bytes(12) + b"\x08\x00\x45" + bytes(11) + source + destination).ljust(size, b"\0")


def test_counts_of_all_cpus_are_added_up(bpf):
    meter = bpf.load("talkers.bpf.c")
    count, talkers = meter.programs.count_talkers, meter.maps.talkers
    for cpu in sorted(os.sched_getaffinity(0)):
        count.run(packet(ALICE, BOB), repeat=2, cpu=cpu)
        assert talkers[ALICE, BOB][cpu] == {"packets": 2, "bytes": 128}
    count.run(packet(BOB, ALICE, size=100))

    cpus = len(os.sched_getaffinity(0))
    assert talkers.sum() == {
        (ALICE, BOB): {"packets": 2 * cpus, "bytes": 128 * cpus},
        (BOB, ALICE): {"packets": 1, "bytes": 100},
    }
