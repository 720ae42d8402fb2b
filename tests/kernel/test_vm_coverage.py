"""Counts of BPF programs in guests are those that llvm-cov gives for the same C, run natively."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from caches import CACHE
from shown_blocks import shows

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

sys.path.insert(0, str(Path(__file__).parent / "covered"))
from native import counting_clang
from truth import PROGRAMS, check, measure

KERNELS = [kernel.name for kernel in Catalogue()]


@pytest.mark.parametrize("kernel", KERNELS)
def test_truth(pytester: pytest.Pytester, tmp_path: Path, kernel: str) -> None:
    clang = counting_clang()
    found = measure(pytester, f"--bpf-kernel={kernel}", f"--bpf-clang={clang}", "--bpf-vm-timeout=120")
    for name in PROGRAMS:
        if name == "callbacks" and not any("callbacks" in path for path in found.kernels[kernel].files):
            continue  # the kernel has no bpf_loop()
        folder = tmp_path / name
        folder.mkdir(parents=True)
        check(found, kernel, name, clang, folder)


@pytest.mark.parametrize("kernel", KERNELS)
def test_truth_of_conditions(pytester: pytest.Pytester, tmp_path: Path, kernel: str) -> None:
    clang = counting_clang()
    names = ("conditions", "concurrent", "decisions")
    options = [f"--bpf-clang={clang}", "--bpf-cov-mcdc", "-k", " or ".join(names), "--bpf-vm-timeout=120"]
    found = measure(pytester, f"--bpf-kernel={kernel}", *options)
    for name in names:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        check(found, kernel, name, clang, folder, mcdc=True)


def test_the_manual_shows_the_table_of_a_run(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    files = [root / f"tests/gallery/test_{name}.py" for name in ("drop_port", "packet_counter")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    command += [*map(str, files), "--bpf-kernel=host,6.1", "--bpf-vm-timeout=120", "--bpf-cov"]
    environment = {**os.environ, "BPFMAPS_CACHE": str(CACHE), "BPF_COVERAGE_FILE": str(tmp_path / "data")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    shows("coverage.md", "bpf/drop_port.bpf.c", done.stdout)
