"""Tests a QEMU that refuses, hangs or gets stuck: the run says so in a line, and the tests still run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from caches import use_new_cache
from qemus import QEMU, emulating

from pytest_bpfmaps.vm.machine.host_cpu import KVM

USABLE = KVM.exists() and os.access(KVM, os.R_OK | os.W_OK)
CONFTEST = """
    import os, pytest

    @pytest.fixture
    def bpf_kernel():
        return os.uname().release
"""
TEST = "def test_x(bpf_kernel): assert bpf_kernel.startswith('6.1.0')"


@pytest.fixture
def qemu(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Has a script start guests, with an empty cache. The given text comes before QEMU's start."""
    cache = use_new_cache(tmp_path / "cache", monkeypatch)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TEST)

    def write(text: str) -> Path:
        path = folder / "qemu-system-x86_64"
        path.write_text(f'#!/bin/sh\n{text}\nexec {QEMU} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return cache

    return write


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("--bpf-kernel=6.1", *arguments)


def test_a_state_that_can_not_be_made(pytester: pytest.Pytester, qemu) -> None:
    """When another way fails, too, both are told. The next run does not make the state in vain.

    With --bpf-vm=warm there is no other way.
    """
    cache = qemu(
        'case "$*" in *memory-backend-file*) echo "$0: no such backend" >&2; exit 1;; '
        '*-append*) echo "$0: no other way" >&2; exit 1;; esac'
    )
    for again in ("", "; that was * min ago"):
        result = run(pytester)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(
            [
                "VmBootError: kernel did not boot: 6.1 (6.1.0-*) with QEMU *no other way*",
                "--- tried before",
                f"*no such backend*{again}",
            ]
        )
        assert ("min ago" in result.stdout.str()) == bool(again)
    insisting = run(pytester, "--bpf-vm=warm")
    insisting.assert_outcomes(errors=1)
    insisting.stdout.fnmatch_lines(
        [
            "VmBootError: kernel did not boot: 6.1 (6.1.0-*) with QEMU *no such backend*",
            f"*{cache}/boots/6.1.sh, and the console in *",
        ]
    )
    assert "memory-backend-file" in (cache / "boots" / "6.1.sh").read_text()
    assert list(cache.glob("warm/6.1-*")) == []


def test_a_boot_that_makes_no_progress(pytester: pytest.Pytester, qemu) -> None:
    """QEMU's -S leaves the CPUs stopped, so nothing ever comes from the guest. Another way starts it."""
    qemu('case "$*" in *-append*memory-backend-file*) set -- "$@" -S;; esac')
    result = run(pytester)
    result.assert_outcomes(passed=1)
    line = "bpfmaps: 6.1 is emulated, booted by virtme-ng, since the usual start failed: *"
    why = f"{line}it made no progress for * s: no new line on its *"
    result.stdout.fnmatch_lines([why])
    command = [sys.executable, "-m", "pytest_bpfmaps.cli", "exec", "6.1", "--", "true"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert fnmatch(done.stderr.strip(), why)


def test_a_state_that_can_not_be_restored(pytester: pytest.Pytester, qemu) -> None:
    """An old state is deleted and made again. When a new state fails, it is not tried again soon.

    A QEMU that somebody has stopped is not the state's fault.
    """
    cache = qemu(
        '[ -e stops ] && case "$*" in *-incoming*) kill -STOP $$;; esac\n'
        '[ -e fails ] && case "$*" in *-incoming*) echo "$0: what is this" >&2; exit 1;; esac\n'
        '[ -e alone ] && case "$*" in *memory-backend-file*) ;; *-append*) exit 1;; esac'
    )
    run(pytester).assert_outcomes(passed=1)
    (state,) = cache.glob("warm/6.1-*")
    (pytester.path / "stops").touch()
    stopped = run(pytester)
    stopped.assert_outcomes(errors=1)
    stopped.stdout.fnmatch_lines(
        ["VmError: kernel did not boot: *; QEMU, process *, is stopped by a signal or a debugger"]
    )
    (pytester.path / "stops").unlink()
    assert state.exists()
    (pytester.path / "fails").touch()
    os.utime(state / "devices", (0, 0))
    line = "bpfmaps: 6.1 is emulated, booted by virtme-ng, since the usual start failed: *what is this*"
    result = run(pytester)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([line])
    assert list(cache.glob("warm/6.1-*")) == []
    (pytester.path / "alone").touch()  # the other way takes long, and has been seen to work
    for again in ("", "; that was * min ago"):
        result = run(pytester)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["--- tried before", f"*what is this*{again}"])
        assert ("is prepared" in result.stdout.str()) != bool(again)
        assert ("min ago" in result.stdout.str()) == bool(again)
        assert list(cache.glob("warm/6.1-*")) == []


@pytest.mark.skipif(not USABLE, reason="no /dev/kvm that this user may use (group kvm)")
def test_a_state_that_kvm_can_not_restore(pytester: pytest.Pytester, qemu) -> None:
    """The kernel is emulated in the same run. The next run does not try KVM in vain, until it is asked to."""
    cache = qemu("")
    faults = '[ -e hangs ] && exec sleep 1000; echo "$0: no way" >&2; exit 1'
    emulating(cache.parent / "bin", before=f'case "$*" in *"-accel kvm"*-incoming*) {faults};; esac')
    (cache / "kvm.json").unlink(missing_ok=True)
    line = "bpfmaps: 6.1 is emulated, from a saved state, since the usual start failed: *"
    for why in ("no way", "no way*that was * min ago", "it did not answer within *"):
        if why.startswith("it did not answer"):
            command = [sys.executable, "-m", "pytest_bpfmaps.cli", "vm", "prepare", "6.1"]
            subprocess.run(command, check=True)
            (pytester.path / "hangs").touch()
        result = run(pytester)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["bpfmaps: kernels 6.1 (6.1.0-*, KVM)", f"{line}{why}*"])
        assert ("min ago" in result.stdout.str()) == ("min ago" in why)
        assert len([one for one in result.outlines if "is emulated" in one]) == 1
        assert len(list(cache.glob("warm/6.1-*"))) == 1


def test_a_qemu_that_hangs_is_found_before_a_guest_starts(pytester: pytest.Pytester, qemu) -> None:
    qemu("sleep 1000")
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: cannot start a guest with *: it did not answer within 20 s"])
