"""Runs the programs of this folder on any kernel. `test_coverage_truth.py` measures their coverage."""

import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FIRST = [
    *((0, 0, 0, 0), (1, 5, 2, 3), (2, 5, 5, 0), (3, 9, 5, 4)),
    *((5, 3, 3, 1), (200, 250, 7, 2), (1, 1, 3, 0), (7, 0, 9, 9)),
]
PACKETS = [
    *(bytes([*four, *four, 0, 0, 0, 0, 8, 6]) for four in FIRST),
    bytes([9, 8, 7, 6] * 4),
    bytes([40] * 20),
]
THREADS, TIMES = 3, 20_000
SIMPLE = ["loops", "early_returns", "conditions", "switches", "functions", "tail_calls", "decisions"]


@pytest.mark.parametrize("name", SIMPLE)
def test_simple(bpf, name):
    run(bpf.load(HERE / f"{name}.bpf.c"))


@pytest.mark.bpf_requires(helper="bpf_loop")
def test_callbacks(bpf):
    run(bpf.load(HERE / "callbacks.bpf.c"))


def test_concurrent(bpf):
    """Several CPUs count at the same time."""
    program = bpf.load(HERE / "concurrent.bpf.c").programs.program
    begin = threading.Barrier(THREADS)

    def work():
        begin.wait()
        for packet in PACKETS:
            program.run(packet, repeat=TIMES)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(loaded):
    for packet in PACKETS:
        loaded.programs.program.run(packet)
