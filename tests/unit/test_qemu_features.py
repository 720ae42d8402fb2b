"""Tests the questions to QEMU before a guest starts, and the message when QEMU does not answer."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.machine import qemu_features
from pytest_bpfmaps.vm.machine.architecture import architecture
from pytest_bpfmaps.vm.machine.qemu import find_qemu
from pytest_bpfmaps.vm.machine.qemu_features import QemuFeatures, features

ARCH = architecture("x86_64")
LATE = "it did not answer within {:g} s"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def real() -> QemuFeatures:
    return features(find_qemu("x86_64"))


def script(folder: Path, text: str) -> str:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def wait_for_end(group: int) -> bool:
    """Returns whether a process group ends soon. A killed process exists until init has reaped it."""
    for _ in range(12000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_the_installed_qemu_answers_and_has_what_guests_need(real: QemuFeatures) -> None:
    assert real.version.split(".")[0].isdigit()
    assert {"erms", "la57", "svm"} <= real.cpu_properties
    assert {"virtio-9p-pci", "memory-backend-file"} <= real.types
    assert real.can_save() == ""
    real.check(ARCH)


def test_the_answer_is_remembered_until_the_binary_changes(tmp_path: Path, cache: Path) -> None:
    count = tmp_path / "count"
    binary = script(tmp_path, f'echo >>{count}; exec {find_qemu("x86_64")} "$@"')
    first = features(binary)
    assert features(binary) == first
    assert count.read_text() == "\n"
    assert json.loads((cache / "qemu.json").read_text())
    os.utime(binary, ns=(1, 1))
    features(binary)
    assert count.read_text() == "\n\n"


def test_features_that_belong_together_are_off_as_far_as_qemu_has_them(real: QemuFeatures) -> None:
    new = replace(real, cpu_properties=real.cpu_properties | {"fsrm", "fzrm", "fsrs", "fsrc"})
    assert new.emulated_cpu(ARCH) == "max,la57=off,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off"
    old = replace(real, cpu_properties=frozenset({"la57", "erms"}))
    assert old.emulated_cpu(ARCH) == "max,la57=off,erms=off"


def test_a_qemu_without_a_device_is_refused(real: QemuFeatures) -> None:
    lacking = replace(real, version="9.9.9", types=real.types - {"virtio-9p-pci"})
    with pytest.raises(VmError) as caught:
        lacking.check(ARCH)
    assert str(caught.value) == (
        "cannot start a guest with qemu-system-x86_64 9.9.9: it was built without virtio-9p-pci\n"
        "  -> install a QEMU that has it (Debian, Ubuntu: apt install qemu-system-x86)"
    )


def test_a_qemu_that_can_not_leave_out_the_memory_saves_no_state(real: QemuFeatures) -> None:
    lacking = replace(real, version="9.9.9", migration_capabilities=frozenset({"xbzrle"}))
    assert lacking.can_save() == "QEMU 9.9.9 has no x-ignore-shared"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sleep 1000", LATE),
        ("sleep 1000 & exit", LATE),
        ("echo 'qemu: -qmp: invalid option' >&2; exit 1", "it does not speak QEMU's monitor protocol"),
        ("echo '[1, {}]'; echo 7; exit 0", "it does not speak QEMU's monitor protocol"),
        ("echo '{\"QMP\": {}}'; exit 0", "it does not speak QEMU's monitor protocol"),
        ('echo \'{"QMP": {"version": 3}}\'; sleep 1000', LATE),
    ],
)
def test_what_is_no_qemu_is_refused_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    group, seconds = tmp_path / "group", 0.5 if why == LATE else 300.0
    binary = script(tmp_path, f"echo $$ >{group}.new; mv {group}.new {group}; {text}")
    while not group.exists():  # a busy machine may not have started it yet
        seconds *= 2
        monkeypatch.setattr(qemu_features, "ANSWER_SECONDS", seconds)
        with pytest.raises(VmError) as caught:
            features(binary)
    assert (caught.value.on, caught.value.why) == (f"with {binary}", why.format(seconds))
    assert ("invalid option" in str(caught.value)) is ("invalid option" in text)
    assert wait_for_end(int(group.read_text()))


def test_a_file_that_can_not_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_bytes(b"\x7fELF")
    (tmp_path / "qemu").chmod(0o755)
    with pytest.raises(VmError, match="Exec format error"):
        features(str(tmp_path / "qemu"))
