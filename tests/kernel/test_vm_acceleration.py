"""Tests whether KVM runs kernels here: how that is found out, how long it is remembered, what is said."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from pathlib import Path

import pytest
from caches import CACHE
from qemus import emulating

from pytest_bpfmaps.cache.stored_files import read_json, write_json
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine import kvm

USABLE = kvm.KVM.exists() and os.access(kvm.KVM, os.R_OK | os.W_OK)


@pytest.fixture
def kernel() -> Kernel:
    return Catalogue(CACHE / "kernels").get("6.1")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_slow_machine_has_the_time_it_needs_as_long_as_the_kernel_gets_on(
    kernel: Kernel, tmp_path: Path
) -> None:
    began = time.monotonic()
    verdict = kvm.probe(kernel, emulating(tmp_path), silent=60.0)
    assert verdict.why == ""
    assert verdict == kvm.Verdict(True)
    took = time.monotonic() - began
    verdict = kvm.probe(kernel, emulating(tmp_path), longest=took / 100)
    assert (verdict.kvm, verdict.hung) == (False, 1)


def test_a_kernel_that_says_nothing_hangs(kernel: Kernel, tmp_path: Path) -> None:
    stopped = emulating(tmp_path, "-S")  # -S never starts its processors
    verdict = kvm.probe(kernel, stopped, silent=1.0)
    assert (verdict.kvm, verdict.hung) == (False, 1)
    assert "/dev/kvm exists but does not run a kernel (its kernel hung after 0 s, and was" in verdict.why
    assert verdict.why.endswith("it said nothing)")
    assert verdict.stretch(60) == 180


def test_a_kernel_that_restarts_early_is_no_verdict_for_long(kernel: Kernel, tmp_path: Path) -> None:
    small = Path(emulating(tmp_path))
    small.write_text(small.read_text().replace("words+=(", "word=${word/root=none/mem=8M}; words+=("))
    verdict = kvm.probe(kernel, str(small), silent=60.0)
    assert (verdict.kvm, verdict.hung) == (False, 1)
    assert re.search(r"\(its kernel restarted early; last line: '\[ .*'\)$", verdict.why)


def test_a_kernel_that_stops_halfway_is_told_with_its_last_line(kernel: Kernel, tmp_path: Path) -> None:
    waits = Path(emulating(tmp_path))
    change = "word=${word/root=none/root=\\/dev\\/none rootwait}; words+=("
    waits.write_text(waits.read_text().replace("words+=(", change))
    # The compressed kernel is silent while it unpacks itself.
    unpacked = dataclasses.replace(kernel, image=kernel.vmlinux)
    verdict = kvm.probe(unpacked, str(waits), silent=20.0, longest=1000.0)
    assert (verdict.kvm, verdict.hung) == (False, 1)
    assert re.search(
        r"hung after [1-9]\d* s, and was silent for \d+ s more; last line: '\[ .*'\)$", verdict.why
    )


def test_a_qemu_that_ends_is_told_in_its_own_words(kernel: Kernel, tmp_path: Path) -> None:
    verdict = kvm.probe(kernel, emulating(tmp_path, "-device", "no-such-thing"), silent=60.0)
    assert (verdict.kvm, verdict.hung) == (False, 0)
    assert "QEMU: -device no-such-thing: 'no-such-thing' is not a valid device model name" in verdict.why


@pytest.mark.skipif(not USABLE, reason="no /dev/kvm that this user may use (group kvm)")
def test_a_verdict_holds_until_the_next_boot(kernel: Kernel, cache: Path) -> None:
    verdict = kvm.judge(kernel)
    assert verdict.kvm or verdict.why
    memory = read_json(cache / "kvm.json")
    write_json(cache / "kvm.json", {**memory, "hung": 0, "why": "remembered"})
    assert kvm.judge(kernel).why == "remembered"
    write_json(cache / "kvm.json", {**memory, "key": "another boot", "why": "remembered"})
    assert kvm.judge(kernel).why != "remembered"


@pytest.mark.skipif(not USABLE, reason="no /dev/kvm that this user may use (group kvm)")
def test_a_hang_holds_for_a_quarter_of_an_hour_then_twice_as_long_each_time(
    kernel: Kernel, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulating(tmp_path, "-S")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(kvm.probe, "__defaults__", (0.5, 5.0))
    for hung, wait, words in ((1, 900, "15 min"), (2, 1800, "30 min"), (3, 3600, "60 min"), (4, 7200, "2 h")):
        began = time.time()
        verdict = kvm.judge(kernel)
        assert (verdict.kvm, verdict.hung) == (False, hung)
        assert began + wait <= verdict.retry <= time.time() + wait
        assert verdict.why.endswith(f"KVM is tried again in {words}, or when {cache}/kvm.json is deleted")
        assert kvm.judge(kernel) == verdict  # the remembered verdict
        memory = read_json(cache / "kvm.json")
        write_json(cache / "kvm.json", {**memory, "retry": time.time() - 1})
    (cache / "kvm.json").unlink()
    assert kvm.judge(kernel).hung == 1  # the remedy that the message names
