from __future__ import annotations

import os
import platform
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_files import BTF, RELEASE, bzimage, elf, vmlinux

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.kernel_image import (
    has_pvh_entry,
    read_btf,
    read_config,
    read_image,
    unpack_vmlinux,
)

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "image"


def test_bzimage_is_recognised(file: Path) -> None:
    file.write_bytes(bzimage())
    image = read_image(file)
    assert (image.format, image.arch, image.release) == ("bzImage", "x86_64", RELEASE)


def test_vmlinux_is_recognised(file: Path) -> None:
    file.write_bytes(vmlinux("6.9.1"))
    image = read_image(file)
    assert (image.format, image.arch, image.release) == ("vmlinux", "x86_64", "6.9.1")


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "lzma", "zstd", "lz4"])
def test_every_compression_gives_the_same_kernel(file: Path, tmp_path: Path, kind: str) -> None:
    kernel = vmlinux(btf=BTF * 3000)  # larger than one read
    file.write_bytes(bzimage(kernel=kernel, kind=kind))
    unpack_vmlinux(read_image(file), tmp_path / "vmlinux")
    assert (tmp_path / "vmlinux").read_bytes() == kernel


def test_btf_config_and_pvh_entry_come_out_of_the_kernel(file: Path) -> None:
    file.write_bytes(vmlinux(config=b"CONFIG_BPF=y\n"))
    assert read_btf(file) == BTF
    assert read_config(file) == b"CONFIG_BPF=y\n"
    assert has_pvh_entry(file)


def test_kernel_without_btf_config_or_pvh_entry(file: Path) -> None:
    file.write_bytes(vmlinux(btf=None, pvh=False))
    assert read_btf(file) is None
    assert read_config(file) is None
    assert not has_pvh_entry(file)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"root:x:0:0\n" * 200, "a text file"),
        (b"#!/bin/sh\n", "a script"),
        (b"!<arch>\ndebian-binary   ", "a Debian package"),
        (b"\xed\xab\xee\xdb" + bytes(100), "an RPM package"),
        (b"\x1f\x8b\x08" + bytes(600), "gzip-compressed file, perhaps an initramfs"),
        (bytes(range(8)) * 100, "starts with the bytes 00 01 02 03"),
        (elf({}, type=1, machine=247), "an ELF relocatable object for bpf"),
        (elf({}, type=3, machine=62), "an ELF program or shared library for x86_64"),
        (elf({}, type=2, machine=40), "an ELF executable for arm"),
        (b"\x7fELF\x01\x01" + bytes(100), "an ELF file for no machine"),
        (elf({".text": b""})[:-70], "an ELF file, but it is cut off: it has "),
        (b"\x7fELF", "an ELF file, but it is damaged: "),
    ],
)
def test_what_is_no_kernel_is_called_by_its_name(file: Path, content: bytes, what: str) -> None:
    file.write_bytes(content)
    with pytest.raises(VmError, match="not a kernel image") as caught:
        read_image(file)
    assert what in str(caught.value)
    assert str(file) in str(caught.value)
    assert "-> name a bzImage" in str(caught.value)


def test_this_python_is_no_kernel() -> None:
    with pytest.raises(VmError, match=r"not a kernel image.* an ELF"):
        read_image(Path("/proc/self/exe").resolve())


def test_kernel_of_another_architecture(file: Path) -> None:
    banner = b"Linux version 6.1.0-arm64 (me@here)\n"
    file.write_bytes(bytes(0x38) + b"ARMd" + bytes(64) + banner)
    with pytest.raises(VmError, match="it is for aarch64, and this machine is x86_64"):
        read_image(file)


def test_vmlinux_without_pvh_entry_is_refused_with_the_remedy(file: Path) -> None:
    file.write_bytes(vmlinux(pvh=False))
    with pytest.raises(VmError, match="CONFIG_PVH=y, or name the bzImage"):
        read_image(file)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(VmError, match="No such file"):
        read_image(tmp_path / "none")
    with pytest.raises(VmError, match="Is a directory"):
        read_image(tmp_path)
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 20 << 30)
    with pytest.raises(VmError, match="a file of 20 GB, and an image has at most 4"):
        read_image(tmp_path / "hole")


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "lzma", "zstd", "lz4"])
def test_damaged_payload(file: Path, tmp_path: Path, kind: str) -> None:
    data = bytearray(bzimage(kernel=vmlinux(btf=bytes(range(256)) * 4000), kind=kind))
    middle = 0x900 + (len(data) - 0x900) // 2
    data[middle : middle + 40] = bytes(byte ^ 0x5A for byte in data[middle : middle + 40])
    file.write_bytes(data)
    with pytest.raises(VmError, match="cannot unpack kernel image"):
        unpack_vmlinux(read_image(file), tmp_path / "vmlinux")


def test_image_that_was_cut_short(file: Path, tmp_path: Path) -> None:
    file.write_bytes(bzimage()[:-100])
    with pytest.raises(VmError, match=r"the payload ends at byte \d+, and the file at byte"):
        unpack_vmlinux(read_image(file), tmp_path / "vmlinux")


def test_unknown_compression(file: Path, tmp_path: Path) -> None:
    data = bytearray(bzimage())
    data[0x900:0x906] = b"snappy"
    file.write_bytes(data)
    with pytest.raises(VmError, match="unknown bytes 73 6e 61"):
        unpack_vmlinux(read_image(file), tmp_path / "vmlinux")


def test_missing_decompressor_is_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(bzimage(kind="zstd"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VmError, match="compressed for 'zstd', which is not installed"):
        unpack_vmlinux(read_image(file), tmp_path / "vmlinux")


def test_payload_that_is_no_kernel(file: Path, tmp_path: Path) -> None:
    file.write_bytes(bzimage(kernel=b"something else"))
    with pytest.raises(VmError, match="its payload is no ELF file"):
        unpack_vmlinux(read_image(file), tmp_path / "vmlinux")


def test_boot_protocol_without_payload(file: Path, tmp_path: Path) -> None:
    data = bytearray(bzimage())
    struct.pack_into("<H", data, 0x206, 0x0206)
    file.write_bytes(data)
    with pytest.raises(VmError, match=r"boot protocol 2\.06 is older"):
        unpack_vmlinux(read_image(file), tmp_path / "vmlinux")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.sampled_from([bzimage(), vmlinux(btf=BTF[:64])]),
    changes=st.lists(st.tuples(st.integers(0, 0x900), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 0x900),
)
def test_damage_anywhere_is_our_error(
    file: Path, data: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(data)
    for at, byte in changes:
        damaged[at % len(damaged)] = byte
    file.write_bytes(damaged[: len(damaged) - cut] if cut % 2 else damaged)
    with suppress(VmError):
        unpack_vmlinux(read_image(file), file.with_name("vmlinux"))
        read_btf(file.with_name("vmlinux"))


def test_bzimage_cut_inside_of_its_header(file: Path) -> None:
    file.write_bytes(bzimage()[:0x208])
    with pytest.raises(VmError, match="not a kernel image"):
        read_image(file)
