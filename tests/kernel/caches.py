"""The cache of this run and new ones, for the pytest and the commands that a test starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_bpfmaps import paths

CACHE = paths.cache_dir()  # read before pytester changes HOME


@pytest.fixture
def cache_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has what the test starts use the kernels and the saved states of this run."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))


def use_new_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the folder a cache with the kernels of this run and without saved states, and has it used.

    What this run knows about KVM and QEMU is copied, because it takes long to find out.
    """
    folder.mkdir(exist_ok=True)
    (folder / "kernels").symlink_to(CACHE / "kernels")
    for name in ("kvm.json", "qemu.json"):
        if (CACHE / name).exists():
            shutil.copy(CACHE / name, folder)
    monkeypatch.setenv("BPFMAPS_CACHE", str(folder))
    return folder
