"""Runs the programs of this folder in any kernel. `test_vm_blocks.py` measures which blocks run."""

import random
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TIMES, THREADS = 500, 3


def packets() -> list[bytes]:
    """Returns packets of 16 bytes. The bytes that the programs read have all kinds of values."""
    chance = random.Random(17)
    return [
        bytes(chance.choice([0, 1, 2, 4, 6, 8, 60, chance.randrange(256)]) for _ in range(16))
        for _ in range(60)
    ]


@pytest.mark.parametrize("name", ["loops", "early_returns", "functions"])
def test_packets(bpf, name):
    run(bpf.load(HERE / f"{name}.bpf.c"))


@pytest.mark.bpf_requires(helper="bpf_loop")
def test_callbacks(bpf):
    run(bpf.load(HERE / "callbacks.bpf.c"))


def test_tail_calls(bpf):
    loaded = bpf.load(HERE / "tail_calls.bpf.c")
    loaded.maps.table[0] = loaded.programs.odd
    loaded.maps.table[1] = loaded.programs.large
    run(loaded)


def test_several_cpus_at_once(bpf):
    program = bpf.load(HERE / "concurrent.bpf.c").programs.program
    arguments = {"args": (packets()[0],), "kwargs": {"repeat": TIMES}}
    threads = [threading.Thread(target=program.run, **arguments) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(loaded):
    for packet in packets():
        loaded.programs.program.run(packet)
