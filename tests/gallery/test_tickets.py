"""Push values into a queue for a program, and pop the values that it pushed onto a stack."""

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "queue", "stack")

XDP_DROP, XDP_PASS = 1, 2


def test_packets_take_tickets_in_order(bpf):
    gate = bpf.load("tickets.bpf.c")
    tickets, used = gate.maps.tickets, gate.maps.used
    for number in (7, 8):
        tickets.push(number)
    assert tickets.peek() == 7

    verdicts = [gate.programs.admit.run(bytes(64)).retval for _ in range(3)]

    assert verdicts == [XDP_PASS, XDP_PASS, XDP_DROP]
    assert not tickets
    assert (used.pop(), used.pop()) == (8, 7)
    with pytest.raises(IndexError):
        used.pop()
