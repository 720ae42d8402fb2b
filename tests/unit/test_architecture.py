"""Tests the table of guests' architectures, and the messages about other architectures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_bpfmaps import vm
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.boot import virtme, warm
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine import kvm as kvm_module
from pytest_bpfmaps.vm.machine.architecture import ARCHITECTURES, architecture
from pytest_bpfmaps.vm.machine.qemu import find_qemu


@pytest.mark.parametrize("way", [warm, virtme])
def test_an_unknown_architecture_is_refused(way) -> None:
    with pytest.raises(VmError) as caught:
        way.check("riscv64")
    assert str(caught.value) == (
        "cannot start a guest of architecture riscv64: guests are known for x86_64 only\n"
        "  -> use --bpf-kernel=host on this machine, or another machine"
    )


@pytest.mark.parametrize("kvm", [False, True])
def test_another_row_reaches_every_part_of_the_command(monkeypatch, tmp_path: Path, kvm: bool) -> None:
    """Uses a row with names that QEMU does not know. No real machine has it."""
    row = dict.fromkeys(("qemu", "package", "machine", "emulated_cpu", "bus", "console"))
    words = {name: f"its-{name}" for name in row}
    arguments = {"kernel_arguments": ("its-argument",), "emulated_kernel_arguments": ("its-slow-argument",)}
    made = type(architecture("x86_64"))(name="other", cpu_features_off=(), **arguments, **words)
    monkeypatch.setitem(ARCHITECTURES, "other", made)
    (tmp_path / "its-qemu").symlink_to(find_qemu("x86_64"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    kernel = Kernel("none", "0", tmp_path / "image", None, None, None, "nowhere", "other")
    shape = warm.MachineConfig(kvm=kvm)
    command = [*warm._command(kernel, shape), *warm._boot(kernel, shape, tmp_path / "initramfs")]
    text = " ".join(command)
    assert command[0] == str(tmp_path / "its-qemu")
    assert "its-machine,memory-backend" in text
    assert ("-cpu host" if kvm else "-cpu its-emulated_cpu") in text
    assert "virtio-9p-its-bus,fsdev" in text
    assert "console=its-console" in text
    assert "its-argument" in text
    assert ("its-slow-argument" in text) is not kvm
    assert not re.search(r"x86|ttyS|-pci\b|\bpc\b", text.replace(str(tmp_path), ""))


def test_names_of_an_architecture_are_in_the_table_only() -> None:
    """Looks at code that starts guests.

    Kernel images, container images and packages have names of their own.
    """
    others = ("architecture.py", "kernel_image.py", "local_kernel.py", "oci_layout.py", "catalogue.py")
    known = re.compile(r"ttyS\d|\bq35\b|qemu-system-|psmouse|virtio-[a-z0-9]+-pci|virtio_pci|ld-linux")
    files = [path for path in Path(vm.__file__).parent.rglob("*") if path.suffix in (".py", ".sh")]
    found = [
        f"{p.name}: {m[0]}" for p in files if p.name not in others for m in known.finditer(p.read_text())
    ]
    assert found == []
    assert kvm_module.__file__ in map(str, files)
