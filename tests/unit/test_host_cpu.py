"""Tests `-cpu host`: it is the same on each processor of this machine, and agrees with /proc/cpuinfo."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.machine import host_cpu

USABLE = host_cpu.KVM.exists() and os.access(host_cpu.KVM, os.R_OK | os.W_OK)
needs_kvm = pytest.mark.skipif(not USABLE, reason="no /dev/kvm that this user may use (group kvm)")


@pytest.fixture
def kvm():
    fd = os.open(host_cpu.KVM, os.O_RDWR)
    yield fd
    os.close(fd)


@needs_kvm
def test_it_is_the_same_on_each_processor():
    allowed = os.sched_getaffinity(0)
    try:
        told = set()
        for processor in allowed:
            os.sched_setaffinity(0, {processor})
            told.add(host_cpu.host_cpu())
    finally:
        os.sched_setaffinity(0, allowed)
    assert len(told) == 1


@needs_kvm
def test_family_model_and_stepping_are_those_of_this_machine(kvm):
    signature = next(a for leaf, _, a, *_ in host_cpu.cpuid(kvm) if leaf == 1)
    family, model, stepping = signature >> 8 & 15, signature >> 4 & 15, signature & 15
    if family >= 6:
        model |= (signature >> 16 & 15) << 4
    if family == 15:
        family += signature >> 20 & 255
    text = Path("/proc/cpuinfo").read_text()
    names = ("cpu family", "model", "stepping")
    told = [int(re.search(rf"^{name}\s*: (\d+)$", text, re.MULTILINE)[1]) for name in names]
    assert [family, model, stepping] == told


@needs_kvm
def test_the_features_that_kvm_hands_on_are_some_of_the_processors(kvm):
    (leaf,) = [registers for number, _, *registers in host_cpu.cpuid(kvm) if number == 1]
    flags = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split()
    bits = {"fpu": (3, 0), "sse2": (3, 26), "ssse3": (2, 9), "aes": (2, 25), "avx": (2, 28), "fxsr": (3, 24)}
    offered = {name for name, (register, bit) in bits.items() if leaf[register] >> bit & 1}
    assert {"fpu", "sse2", "fxsr"} <= offered <= set(flags)


@needs_kvm
def test_microcode_is_part_of_it(kvm):
    found = re.search(r"^microcode\s*: (0x[0-9a-f]+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    told = dict(host_cpu.feature_msrs(kvm)).get(0x8B)  # Intel: the upper half is the microcode's version
    if found is None or told is None:
        pytest.skip("this kernel does not tell the microcode's revision")
    assert int(found[1], 16) in (told, told >> 32)


@needs_kvm
@pytest.mark.parametrize("part", ["cpuid", "feature_msrs", "frequency"])
def test_another_answer_is_another_processor(part, monkeypatch):
    here = host_cpu.host_cpu()
    true = getattr(host_cpu, part)
    monkeypatch.setattr(host_cpu, part, lambda *of: [*true(*of), (0x99, 1)])
    assert host_cpu.host_cpu() != here


def test_a_device_that_is_not_kvm(tmp_path, monkeypatch):
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(host_cpu, "KVM", tmp_path / "kvm")
    with pytest.raises(VmError, match="cannot tell which processor KVM offers") as caught:
        host_cpu.host_cpu()
    assert "hide it: guests are emulated then" in str(caught.value)
