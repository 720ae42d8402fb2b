"""Recognises a kernel image, and takes it apart: release, uncompressed kernel, BTF, configuration.

Sources: ``Documentation/arch/x86/boot.rst`` (the header of a bzImage), ``scripts/extract-ikconfig`` (where
the configuration is).
"""

from __future__ import annotations

import mmap
import platform
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_bpfmaps.elf.reader import ElfError, notes, open_elf
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.decompress import decompress
from pytest_bpfmaps.vm.kernels.name_grammar import checked

_SETUP_SECTS = 0x1F1
_BOOT_FLAG = 0x1FE
_MAGIC = 0x202
_PROTOCOL = 0x206
_KERNEL_VERSION = 0x20E
_PAYLOAD = 0x248
_MOST_CONFIG = 16 << 20
_LARGEST = 4 << 30  # bytes; a vmlinux with all debug information has less than 2 GB
_LINUX_BANNER = re.compile(rb"Linux version (\S+) \(")

# The first bytes of files that people take for a kernel.
_OTHER_FILES = (
    (b"!<arch>\ndebian-binary", "a Debian package"),
    (b"!<arch>\n", "a static library"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"070701", "a cpio archive, perhaps an initramfs"),
    (b"hsqs", "a SquashFS file system"),
    (b"QFI\xfb", "a qcow2 disk image"),
    (b"\x1f\x8b", "a gzip-compressed file, perhaps an initramfs"),
    (b"\xfd7zXZ\x00", "an xz-compressed file"),
    (b"\x28\xb5\x2f\xfd", "a zstd-compressed file, perhaps an initramfs"),
    (b"PK\x03\x04", "a zip archive"),
    (b"#!", "a script"),
)

_TYPES = {
    "ET_REL": "relocatable object",
    "ET_EXEC": "executable",
    "ET_DYN": "program or shared library",
    "ET_CORE": "core dump",
}
_MACHINES = {
    "EM_386": "x86",
    "EM_PPC": "ppc",
    "EM_PPC64": "ppc64",
    "EM_S390": "s390x",
    "EM_RISCV": "riscv64",
    "EM_NONE": "no machine",
}
_XEN_ELFNOTE_PHYS32_ENTRY = 18  # include/xen/interface/elfnote.h

FIX = "name a bzImage, such as /boot/vmlinuz-* or arch/x86/boot/bzImage of a build tree"


@dataclass(frozen=True)
class KernelImage:
    """A file that a machine can boot; `arch` is what ``uname -m`` says, `release` what ``uname -r`` says."""

    path: Path
    format: Literal["bzImage", "vmlinux"]
    arch: str
    release: str


def read_image(path: Path) -> KernelImage:
    """Returns the kernel at `path`. Raises VmError for another file, which says what the file is."""
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise _not_a_kernel(path, f"a file of {size >> 30} GB, and an image has at most {_LARGEST >> 30}")
        with _mapped(path) as data:
            return _recognise(path, data)
    except OSError as error:
        raise VmError("cannot read kernel image", on=str(path), why=error.strerror, fix=FIX) from error


def _recognise(path: Path, data: mmap.mmap | bytes) -> KernelImage:
    whole_header = len(data) >= _PAYLOAD + 8
    if (
        whole_header
        and data[_MAGIC : _MAGIC + 4] == b"HdrS"
        and data[_BOOT_FLAG : _BOOT_FLAG + 2] == b"\x55\xaa"
    ):
        image = KernelImage(path, "bzImage", "x86_64", _bzimage_release(path, data))
    elif data[:4] == b"\x7fELF":
        image = _recognise_elf(path, data)
    elif data[0x38:0x3C] == b"ARMd":
        banner = _LINUX_BANNER.search(data)
        image = KernelImage(path, "vmlinux", "aarch64", banner[1].decode(errors="replace") if banner else "")
    else:
        raise _not_a_kernel(path, _what_is(data))
    try:
        checked("kernel release", image.release)
    except ValueError as error:
        fix = "build it with another CONFIG_LOCALVERSION"
        raise VmError("cannot use kernel image", on=str(path), why=str(error), fix=fix) from None
    if image.arch != platform.machine():
        raise VmError(
            "cannot use kernel image",
            on=str(path),
            why=f"it is for {image.arch}, and this machine is {platform.machine()}",
            fix="a guest shares this machine's programs, so it needs a kernel of the same architecture",
        )
    return image


def _bzimage_release(path: Path, data: mmap.mmap | bytes) -> str:
    (pointer,) = struct.unpack_from("<H", data, _KERNEL_VERSION)
    start = pointer + 0x200
    words = bytes(data[start : start + 256]).split(b"\0")[0].split()
    if not pointer or not words:
        raise _not_a_kernel(path, "a boot sector without a Linux release string")
    return words[0].decode(errors="replace")


def _recognise_elf(path: Path, data: mmap.mmap | bytes) -> KernelImage:
    try:
        with open_elf(path, name="it") as elf:
            machine, kind = _machine(elf["e_machine"]), elf["e_type"]
            bootable = machine != "x86_64" or _has_pvh_entry(elf)
    except ValueError as error:
        raise _not_a_kernel(path, f"an ELF file, but {error}") from error
    banner = _LINUX_BANNER.search(data) if kind == "ET_EXEC" else None
    if banner is None:
        raise _not_a_kernel(path, f"an ELF {_TYPES.get(kind, 'file')} for {machine}")
    if not bootable:
        raise VmError(
            "cannot boot kernel image",
            on=str(path),
            why="it is an uncompressed vmlinux without a PVH entry point",
            fix="build it with CONFIG_PVH=y, or name the bzImage of the same build",
        )
    return KernelImage(path, "vmlinux", machine, banner[1].decode(errors="replace"))


def _machine(found: str | int) -> str:
    """Returns a machine as ``uname -m`` says it, from what pyelftools says."""
    if isinstance(found, int):
        return f"machine number {found}"
    return _MACHINES.get(found, found.removeprefix("EM_").lower())


def _has_pvh_entry(elf: Any) -> bool:
    """Returns whether this kernel can be started uncompressed (Linux 4.21, ``CONFIG_PVH``)."""
    return ("Xen", _XEN_ELFNOTE_PHYS32_ENTRY) in notes(elf)


def _not_a_kernel(path: Path, what: str) -> VmError:
    return VmError("not a kernel image:", on=str(path), why=f"it is {what}", fix=FIX)


def _what_is(data: mmap.mmap | bytes) -> str:
    if not data:
        return "an empty file"
    for magic, what in _OTHER_FILES:
        if data[: len(magic)] == magic:
            return what
    head = bytes(data[:512])
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "a text file"
    return f"data that starts with the bytes {head[:8].hex(' ')}"


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    with path.open("rb") as file:
        if not path.stat().st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def unpack_vmlinux(image: KernelImage, target: Path) -> None:
    """Writes the uncompressed kernel of `image` to `target`.

    Raises VmError when the image is damaged, or when this machine has no program for its compression.
    """
    with _mapped(image.path) as data:
        if image.format == "vmlinux":
            target.write_bytes(data)
            return
        with target.open("wb") as out:
            try:
                decompress(_payload(data), out)
            except ValueError as error:
                raise VmError(
                    "cannot unpack kernel image",
                    on=str(image.path),
                    why=str(error),
                    fix="the file may be cut short: copy or fetch it again",
                ) from error
    try:
        with open_elf(target, name="its payload"):
            pass
    except ValueError as error:
        raise VmError("cannot unpack kernel image", on=str(image.path), why=str(error), fix=FIX) from error


def _payload(data: mmap.mmap | bytes) -> bytes:
    (protocol,) = struct.unpack_from("<H", data, _PROTOCOL)
    if protocol < 0x208:
        raise ValueError(f"its boot protocol {protocol >> 8}.{protocol & 0xFF:02} is older than Linux 2.6.26")
    setup = (data[_SETUP_SECTS] or 4) + 1
    offset, length = struct.unpack_from("<II", data, _PAYLOAD)
    start = setup * 512 + offset
    if start + length > len(data):
        raise ValueError(f"the payload ends at byte {start + length}, and the file at byte {len(data)}")
    return bytes(data[start : start + length])


@contextmanager
def _damage_told(vmlinux: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, zlib.error) as error:
        why = str(error) if isinstance(error, ElfError) else f"it is damaged: {error}"
        raise VmError("cannot read kernel image", on=str(vmlinux), why=why, fix=FIX) from error


def read_btf(vmlinux: Path) -> bytes | None:
    """Returns the raw BTF of an uncompressed kernel, or None (Linux >= 5.2 with ``CONFIG_DEBUG_INFO_BTF``).

    Raises VmError for a damaged file, as the two functions below do.
    """
    with _damage_told(vmlinux), open_elf(vmlinux, name="it") as elf:
        section = elf.get_section_by_name(".BTF")
        return None if section is None else bytes(section.data())


def has_pvh_entry(vmlinux: Path) -> bool:
    """Returns whether this uncompressed kernel can be booted directly."""
    with _damage_told(vmlinux), open_elf(vmlinux, name="it") as elf:
        return _has_pvh_entry(elf)


def read_config(vmlinux: Path) -> bytes | None:
    """Returns the configuration inside an uncompressed kernel, or None (``CONFIG_IKCONFIG``)."""
    with _damage_told(vmlinux), _mapped(vmlinux) as data:
        start = data.find(b"IKCFG_ST\x1f\x8b")
        if start < 0:
            return None
        unpack = zlib.decompressobj(31)
        text = unpack.decompress(data[start + 8 :], _MOST_CONFIG)
        if not unpack.eof:
            raise ValueError(f"its configuration is cut off, or larger than {_MOST_CONFIG} bytes")
        return text
