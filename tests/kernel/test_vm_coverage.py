"""Counts of BPF programs in guests are those that llvm-cov gives for the same C, run natively."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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
