"""Tests what guests need of this machine, and what is said when it is missing."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
from caches import CACHE

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.boot import virtme, warm
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel import Kernel


@pytest.fixture
def kernel() -> Kernel:
    return Catalogue(CACHE / "kernels").get("6.1")


def _only(folder: Path, *programs: str) -> str:
    """Makes a PATH with only these programs."""
    folder.mkdir()
    for program in programs:
        found = shutil.which(program)
        assert found is not None
        (folder / program).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        (["busybox"], "cannot start a guest: qemu-system-x86_64 is not on the PATH"),
        (["qemu-system-x86_64"], "cannot start a guest: there is no busybox"),
    ],
)
def test_a_missing_program_is_a_usage_error(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    programs: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(CACHE))
    monkeypatch.setenv("PATH", _only(tmp_path / "bin", *programs))
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}*", "*-> install *apt install*"])


def test_virtme_ng_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", _only(tmp_path / "bin", "busybox"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(VmError, match=r"virtme-ng is not installed") as caught:
        virtme.find_virtme()
    assert "pip install 'pytest-bpfmaps[vm]'" in str(caught.value)


@pytest.mark.parametrize("said", [OSError(errno.EINVAL, "Invalid argument"), ValueError("no name"), None])
def test_a_python_for_musl_is_refused(monkeypatch: pytest.MonkeyPatch, said: Exception | None) -> None:
    """os.confstr with musl does the first, or the second if Python's build did not find the name."""

    def confstr(name: str) -> None:
        if said is not None:
            raise said

    warm.check("x86_64")
    monkeypatch.setattr(os, "confstr", confstr)
    with pytest.raises(VmError) as caught:
        warm.check("x86_64")
    assert str(caught.value) == (
        "cannot save the state of a guest: this Python was built for another C library than glibc\n"
        "  -> leave out --bpf-vm=warm, or use --bpf-vm=virtme-ng"
    )


def test_virtme_run_refusing_is_told_in_its_own_words(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    gone = dataclasses.replace(kernel, image=tmp_path / "vmlinuz")
    with pytest.raises(VmError, match="virtme-run refused kernel") as caught:
        virtme.start(gone, virtme.MachineConfig())
    assert "vmlinuz does not exist" in str(caught.value.details)
