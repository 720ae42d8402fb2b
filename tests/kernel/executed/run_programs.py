"""Runs the programs of this folder in any kernel. `test_vm_blocks_truth.py` measures which blocks run."""

import random
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TIMES, THREADS = 100, 3
SIMPLE = ["loops", "nested_loops", "early_returns", "conditions", "functions", "headers", "tail_calls"]
PARALLEL = ["concurrent", "percpu"]


def packets() -> list[bytes]:
    """Returns packets of 16 bytes. The bytes that the programs read have all kinds of values."""
    chance = random.Random(17)
    return [
        bytes(chance.choice([0, 1, 2, 4, 6, 8, 60, chance.randrange(256)]) for _ in range(16))
        for _ in range(60)
    ]


def packets_of(name: str) -> list[bytes]:
    """Returns the packets of a program. Each thread of a parallel one runs its packets `TIMES` times."""
    return packets()[:4] if name in PARALLEL else packets()


@pytest.mark.parametrize("name", SIMPLE)
def test_packets(bpf, name):
    run(bpf.load(HERE / f"{name}.bpf.c"))


@pytest.mark.bpf_requires(helper="bpf_loop")
def test_callbacks(bpf):
    run(bpf.load(HERE / "callbacks.bpf.c"))


@pytest.mark.parametrize("name", PARALLEL)
def test_several_cpus_at_once(bpf, name):
    program = bpf.load(HERE / f"{name}.bpf.c").programs.program
    begin = threading.Barrier(THREADS)

    def work():
        begin.wait()
        for packet in packets_of(name):
            program.run(packet, repeat=TIMES)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(loaded):
    for packet in packets():
        loaded.programs.program.run(packet)
