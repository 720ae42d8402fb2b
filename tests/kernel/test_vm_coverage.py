"""Counts of BPF programs in guests are those that llvm-cov gives for the same C, run natively."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.compiler import LocalCompiler
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

sys.path.insert(0, str(Path(__file__).parent / "covered"))
from native import MCDC, knows_conditions
from truth import PROGRAMS, check, measure

KERNELS = [kernel.name for kernel in Catalogue()]


@pytest.mark.parametrize("kernel", KERNELS)
def test_truth(pytester: pytest.Pytester, tmp_path: Path, kernel: str) -> None:
    found = measure(pytester, f"--bpf-kernel={kernel}", "--bpf-vm-timeout=120")
    clang = LocalCompiler().clang.path
    for name in PROGRAMS:
        if name == "callbacks" and not any("callbacks" in path for path in found.kernels[kernel].files):
            continue  # the kernel has no bpf_loop()
        folder = tmp_path / name
        folder.mkdir(parents=True)
        check(found, kernel, name, clang, folder)


@pytest.mark.parametrize("kernel", KERNELS)
def test_truth_of_conditions(pytester: pytest.Pytester, tmp_path: Path, kernel: str) -> None:
    clang = LocalCompiler().clang.path
    assert knows_conditions(clang), f"{clang} has no {MCDC}: install clang-18 or later"
    names = ("conditions", "concurrent", "decisions")
    options = ["--bpf-cov-mcdc", "-k", " or ".join(names), "--bpf-vm-timeout=120"]
    found = measure(pytester, f"--bpf-kernel={kernel}", *options)
    for name in names:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        check(found, kernel, name, clang, folder, mcdc=True)
