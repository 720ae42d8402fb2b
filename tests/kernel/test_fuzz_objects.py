"""Tests damaged objects: no crash, no hang, no open descriptor, and only our own errors.

Each batch runs in a process of its own. ``BPFMAPS_FUZZ=10000`` tries 10,000 objects per program.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import how_many

BPF = Path(__file__).parents[2] / "bpf"
CHILD = Path(__file__).with_name("fuzz_child.py")
BATCH = 500
SECONDS_PER_OBJECT = 5.0  # an object takes far less: only a hang needs as much


@pytest.mark.parametrize("program", ["rate_limit", "packet_counter", "exec_events"])
def test_damaged_objects(bpf, bpf_kernel, program, tmp_path):
    path = tmp_path / "good.o"  # outside of the cache: objects in the cache are not checked
    shutil.copy(bpf.compile(BPF / f"{program}.bpf.c"), path)
    count = how_many(20 if bpf_kernel.emulated else 150)
    totals = [0, 0, 0]
    for first in range(0, count, BATCH):
        totals = [a + b for a, b in zip(totals, batch(path, first, min(BATCH, count - first)), strict=True)]
    opened, _loaded, _refused = totals
    assert 0 < opened < count, "damage that is always or never noticed tests nothing"


def batch(path, first, count):
    command = [sys.executable, CHILD, path, str(first), str(count)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=count * SECONDS_PER_OBJECT, check=False
    )
    lines = done.stdout.splitlines()
    seeds = [line for line in lines if line.startswith("at ")]
    last = seeds[-1] if seeds else "at the start"
    assert done.returncode == 0, f"{path.name} {last}: exit status {done.returncode}\n{done.stderr}"
    assert not [line for line in lines if line.startswith(("bad", "leak"))]
    return [int(n) for n in lines[-1].split()[1:]]
