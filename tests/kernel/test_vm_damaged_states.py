"""Tests that a saved state that has changed on the disk is made again, once, and that a line says so."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from caches import CACHE, use_new_cache

from pytest_bpfmaps.vm.boot import warm
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.machine.kvm import judge
from pytest_bpfmaps.vm.machine.qemu import MachineConfig


@pytest.fixture
def state(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Returns the path of a state in a cache of its own.

    It is a copy of the state that other tests use, because making one takes long.
    """
    pytester.makepyfile("def test_x(bpf_kernel): assert bpf_kernel.release.startswith('6.1.0')")
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    run(pytester)
    kernel = Catalogue().get("6.1")
    used = warm.state_for(kernel, MachineConfig(kvm=judge(kernel).kvm)).path
    cache = use_new_cache(tmp_path / "cache", monkeypatch)
    (cache / "warm").mkdir(mode=0o700)
    subprocess.run(["cp", "--archive", used, cache / "warm"], check=True)  # keeps holes
    return cache / "warm" / used.name


def run(pytester: pytest.Pytester) -> str:
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1")
    result.assert_outcomes(passed=1)
    return result.stdout.str()


def test_damaged_states_are_made_again(pytester: pytest.Pytester, state: Path) -> None:
    made = state.stat().st_ctime_ns
    with (state / "devices").open("r+b") as file:  # flipped bits are found when the restore fails
        file.seek(200)
        file.write(os.urandom(4000))
    said = run(pytester)
    assert "since the usual start failed: its saved state was damaged, and was made again" in said
    assert state.stat().st_ctime_ns > made
    os.truncate(state / "memory", 1 << 20)  # a wrong size is found before the restore
    said = run(pytester)
    assert "was damaged" not in said
    assert "bpfmaps: 6.1 is prepared, once, about 15 s: boot, imports, save" in said
    assert (state / "memory").stat().st_size == 1 << 30
    said = run(pytester)
    assert "was damaged" not in said
    assert "is prepared" not in said
    assert list(state.parent.glob("6.1-*")) == [state]
