"""Send commands to a program with a user ring buffer."""

import pytest

pytestmark = pytest.mark.bpf_requires("xdp", "user_ringbuf")


def test_the_program_obeys_in_order(bpf):
    obj = bpf.load("commands.bpf.c")
    commands = obj.maps.commands

    commands.send({"operation": "ADD", "amount": 100})
    with commands.reserve() as command:
        command.write(("SUBTRACT", 30))
    commands.reserve().discard()
    assert obj.globals.done == 0

    obj.programs.drain.run(bytes(64))
    assert (obj.globals.done, obj.globals.balance) == (2, 70)
