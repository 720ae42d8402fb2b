"""Makes small kernel images and packages by the rules of the boot protocol. No machine could boot them.

They have the formats and layouts of real packages. tests/kernel/ uses real packages.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import subprocess
from pathlib import Path

RELEASE = "6.1.0-7-amd64"
BTF = b"\x9f\xeb\x01\x00" + b"types and strings" * 50
PVH_NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)


def elf(sections: dict[str, bytes], *, type: int = 2, machine: int = 62) -> bytes:
    """Returns a 64-bit little-endian ELF file with these sections; ``.notes`` is a section of notes."""
    names = b"\0"
    body = bytes(64)
    headers = bytes(64)
    for name, data in {**sections, ".shstrtab": b""}.items():
        offset = len(names)
        names += name.encode() + b"\0"
        content = data if name != ".shstrtab" else names
        kind = {".notes": 7, ".shstrtab": 3}.get(name, 1)
        headers += struct.pack("<IIQQQQIIQQ", offset, kind, 0, 0, len(body), len(content), 0, 0, 1, 0)
        body += content
    count = len(headers) // 64
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, type, machine, 1, 0, 0, len(body), 0, 64, 0, 0, 64, count, count - 1
    )
    return header + body[64:] + headers


def vmlinux(
    release: str = RELEASE, *, btf: bytes | None = BTF, pvh: bool = True, config: bytes = b""
) -> bytes:
    """Returns an uncompressed kernel."""
    rodata = f"Linux version {release} (me@here) #1\n".encode()
    if config:
        rodata += b"IKCFG_ST" + gzip.compress(config, mtime=0) + b"IKCFG_ED"
    sections = {".rodata": rodata}
    if btf is not None:
        sections[".BTF"] = btf
    if pvh:
        sections[".notes"] = PVH_NOTE
    return elf(sections)


def compressed(data: bytes, kind: str) -> bytes:
    """Returns `data` as the payload of a ``CONFIG_KERNEL_<KIND>`` kernel.

    Except for gzip, its size is the end.
    """
    size = struct.pack("<I", len(data))
    match kind:
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "xz":
            filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2}]
            return lzma.compress(data, check=lzma.CHECK_CRC32, filters=filters) + size
        case "bzip2":
            return bz2.compress(data) + size
        case "lzma":
            return lzma.compress(data, format=lzma.FORMAT_ALONE) + size
    command = {"zstd": ["zstd", "-q", "-c"], "lz4": ["lz4", "-l", "-q", "-c", "-"]}[kind]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout + size


def bzimage(release: str = RELEASE, *, kernel: bytes | None = None, kind: str = "gzip") -> bytes:
    """Returns a bzImage of boot protocol 2.15 that has `kernel` in it."""
    payload = compressed(vmlinux(release) if kernel is None else kernel, kind)
    setup_sects, lead = 3, 0x100
    head = bytearray((setup_sects + 1) * 512)
    head[0x1F1] = setup_sects
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x020F)
    struct.pack_into("<H", head, 0x20E, 0x300)
    struct.pack_into("<II", head, 0x248, lead, len(payload))
    version = f"{release} (me@here) #1 SMP\0".encode()
    head[0x500 : 0x500 + len(version)] = version
    return bytes(head) + bytes(lead) + payload


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Writes these files below `root`."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def package_files(release: str = RELEASE) -> dict[str, bytes]:
    """Returns the files of a kernel package."""
    modules = f"lib/modules/{release}"
    return {
        f"boot/vmlinuz-{release}": bzimage(release),
        f"boot/config-{release}": b"CONFIG_BPF=y\n",
        f"{modules}/modules.order": b"kernel/fs/9p/9p.ko\n",
        f"{modules}/modules.builtin": b"",
        f"{modules}/kernel/fs/9p/9p.ko": elf({".modinfo": b"license=GPL\0"}, type=1),
    }


def deb(folder: Path, name: str, version: str, files: dict[str, bytes], depends: str = "") -> Path:
    """Makes a Debian package in `folder` by dpkg-deb: the same content gives the same bytes."""
    tree = write(folder / f"{name}.tree", files)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: me <me@here>\n"
    control += f"Depends: {depends}\n" if depends else ""
    write(tree, {"DEBIAN/control": (control + "Description: test\n").encode()})
    target = folder / f"{name}_{version}_amd64.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(target)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return target


def rpm(
    folder: Path,
    name: str,
    version: str,
    files: dict[str, bytes],
    payload: str = "w3.zstdio",
    *,
    format: int = 4,
) -> Path:
    """Makes an RPM package in `folder` by rpmbuild; `payload` is RPM's own name for a compression.

    `format` is the package's format. rpm before version 6 makes only format 4.
    """
    tree = write(folder / f"{name}.tree", files)
    macros = {"_topdir": folder / f"{name}.rpmbuild", "_rpmdir": folder, "_binary_payload": payload}
    macros |= {"_build_name_fmt": "%{NAME}-%{VERSION}.rpm", "__os_install_post": "%{nil}"}
    macros |= {"_dbpath": folder / f"{name}.rpmdb", "_rpmformat": format}
    spec = f"""
Name: {name}
Version: {version}
Release: 1
Summary: test
License: none
AutoReqProv: no
%description
test
%install
cp -r {tree}/. %{{buildroot}}
%files
/
"""
    write(folder, {f"{name}.spec": spec.encode()})
    defines = [word for key, value in macros.items() for word in ("--define", f"{key} {value}")]
    command = ["rpmbuild", "-bb", "--quiet", "--target", "x86_64", *defines, str(folder / f"{name}.spec")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / f"{name}-{version}.rpm"
