"""Tests that a saved state that has changed on the disk is made again, once, and that a line says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from caches import use_new_cache


@pytest.fixture
def state(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Path]:
    """Returns the path of the state that a run has made or used, in a cache of its own."""
    cache = use_new_cache(tmp_path / "cache", monkeypatch)
    pytester.makepyfile("def test_x(bpf_kernel): assert bpf_kernel.release.startswith('6.1.0')")

    def find() -> Path:
        (found,) = (cache / "warm").glob("6.1-*")
        return found

    return find


def run(pytester: pytest.Pytester) -> str:
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1")
    result.assert_outcomes(passed=1)
    return result.stdout.str()


def test_damaged_states_are_made_again(pytester: pytest.Pytester, state: Callable[[], Path]) -> None:
    said = run(pytester)
    assert "was damaged" not in said
    assert "bpfmaps: 6.1 is prepared, once, about 15 s: boot, imports, save" in said
    first = state()
    made = first.stat().st_ctime_ns
    with (first / "devices").open("r+b") as file:  # flipped bits are found when the restore fails
        file.seek(200)
        file.write(os.urandom(4000))
    said = run(pytester)
    assert "since the usual start failed: its saved state was damaged, and was made again" in said
    assert state().stat().st_ctime_ns > made
    os.truncate(state() / "memory", 1 << 20)  # a wrong size is found before the restore
    assert "was damaged" not in run(pytester)
    assert (state() / "memory").stat().st_size == 1 << 30
    said = run(pytester)
    assert "was damaged" not in said
    assert "is prepared" not in said
