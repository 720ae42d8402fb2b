"""Tests which ``vmlinux`` with symbols a debugger gets."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_bpfmaps.vm.kernels.debug_vmlinux import find_vmlinux, how_to_get_it
from pytest_bpfmaps.vm.kernels.kernel import Kernel

OWN_ID = "0123456789abcdef0123456789abcdef01234567"


def kernel(source: str) -> Kernel:
    image = Path("/none/boot/vmlinuz")
    return Kernel("mine", "6.99.0-none", image, None, None, None, source, "x86_64")


def build(path: Path, *options: str) -> None:
    code = path.with_name("code.c")
    code.write_text("int banner = 1;")
    path.unlink(missing_ok=True)
    command = ["gcc", "-nostdlib", "-Wl,-e,0", "-Wl,-Ttext=0x1000000", *options, "-o", str(path), str(code)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("source", [".", "arch/x86/boot/bzImage"])
def test_of_a_build_tree(tmp_path: Path, source: str) -> None:
    build(tmp_path / "vmlinux", "-static", f"-Wl,--build-id=0x{OWN_ID}")
    search = find_vmlinux(kernel(str(tmp_path / source)), OWN_ID)
    assert search.found is not None
    assert search.found.path == tmp_path / "vmlinux"
    assert search.others == ()


def test_of_another_build(tmp_path: Path) -> None:
    mine = kernel(str(tmp_path))
    build(tmp_path / "vmlinux", "-Wl,--build-id=0xff")
    search = find_vmlinux(mine, OWN_ID)
    assert search.found is None
    other = f"{tmp_path}/vmlinux is of another build: its build id is ff, not {OWN_ID}"
    assert search.others == (other,)
    assert find_vmlinux(mine, "").found is not None  # a kernel that tells no build id


def test_without_symbols_or_damaged(tmp_path: Path) -> None:
    mine = kernel(str(tmp_path))
    assert find_vmlinux(mine, OWN_ID).others == ()
    build(tmp_path / "vmlinux", "-s", f"-Wl,--build-id=0x{OWN_ID}")
    assert find_vmlinux(mine, OWN_ID).found is None
    (tmp_path / "vmlinux").write_bytes(b"no ELF file")
    search = find_vmlinux(mine, OWN_ID)
    assert search.found is None
    assert search.others == (f"{tmp_path}/vmlinux can't be read: {tmp_path}/vmlinux is no ELF file",)


def test_what_a_person_is_told() -> None:
    assert "apt-get download linux-image-6.99.0-none-dbg;" in how_to_get_it(kernel("debian:sid"))
    assert "CONFIG_DEBUG_INFO" in how_to_get_it(kernel("/src/linux"))
    assert "kernel-debuginfo" in how_to_get_it(kernel("mainline:6.99"))
