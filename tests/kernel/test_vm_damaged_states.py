"""Tests that a saved state that has changed on the disk is made again, once, and that a line says so."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from caches import CACHE, use_new_cache

from pytest_bpfmaps.vm.boot import warm
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.machine.kvm import judge
from pytest_bpfmaps.vm.machine.qemu import MachineConfig

LIMIT = 24  # seconds for each step of the guest that hangs
HALT, UD2 = b"\xfa\xf4", b"\x0f\x0b"  # `cli; hlt`, and what no processor runs
PLACES = ("_stext", "_etext", "__x64_sys_bpf")


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


def run(pytester: pytest.Pytester, *options: str) -> str:
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1", *options)
    result.assert_outcomes(passed=1)
    return result.stdout.str()


def addresses(pytester: pytest.Pytester) -> dict[str, int]:
    """Returns where 6.1 has `PLACES` in the guest's memory. Without KASLR, the kernel's text begins there."""
    pytester.makepyfile(
        f"""
        def test_x(bpf_kernel):
            for line in open("/proc/kallsyms"):
                address, _, name = line.split()[:3]
                if name in {PLACES}:
                    print(f"place {{name}} {{address}} end")
        """
    )
    found = re.findall(r"place (\w+) (\w+) end", run(pytester, "-rP"))
    assert {name for name, _ in found} == set(PLACES)
    return {name: int(address, 16) - 0xFFFFFFFF80000000 for name, address in found}


def overwrite(state: Path, at: int, code: bytes) -> None:
    """Writes machine code into the saved memory."""
    with (state / "memory").open("r+b") as file:
        file.seek(at)
        file.write(code)


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


def test_a_guest_that_hangs_because_of_its_state(pytester: pytest.Pytester, state: Path) -> None:
    """It may never be ready, or hang or panic later, in the first call that reaches the damage."""
    places = addresses(pytester)  # runs from the state as it was
    pytester.makepyfile("def test_x(bpf): bpf.create_map('array', key=4, value=4, max_entries=1)")
    call = places["__x64_sys_bpf"]
    for code, why in ((HALT, "test hung in kernel|guest died"), (UD2, "guest died:.*kernel panic")):
        kept = state.with_name("kept")
        subprocess.run(["cp", "--archive", state, kept], check=True)
        overwrite(state, call, code)
        result = pytester.runpytest_subprocess("--bpf-kernel=6.1", f"--bpf-vm-timeout={LIMIT}")
        result.assert_outcomes(failed=1)
        said = result.stdout.str()
        assert re.search(why, said)
        assert "its saved state was damaged, and is deleted" in said
        assert "-> run the test again, from a new state" in said
        assert not state.exists()
        kept.rename(state)
    start, end = places["_stext"], places["_etext"]
    overwrite(state, start, HALT * ((end - start) // len(HALT)))  # it stops at its first instruction
    made = state.stat().st_ctime_ns
    said = run(pytester)
    assert said.count("its saved state was damaged, and was made again") == 1
    assert said.count("is prepared, once") == 1
    assert state.stat().st_ctime_ns > made
