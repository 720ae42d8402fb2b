"""Finds the ``vmlinux`` with symbols of a kernel, which a debugger needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.elf.debug_files import build_id
from pytest_bpfmaps.elf.reader import ElfError, loaded_segments, open_elf
from pytest_bpfmaps.vm.kernels.kernel import Kernel

_DEBUG = Path("/usr/lib/debug")
_INSTALLED = (  # Debian, Fedora, Arch Linux and openSUSE, `make install`, a build tree that is linked
    f"{_DEBUG}/boot/vmlinux-{{release}}",
    f"{_DEBUG}/lib/modules/{{release}}/vmlinux",
    f"{_DEBUG}/usr/lib/modules/{{release}}/vmlinux",
    f"{_DEBUG}/boot/vmlinux-{{release}}.debug",
    "/boot/vmlinux-{release}",
    "/lib/modules/{release}/vmlinux",
    "/lib/modules/{release}/build/vmlinux",
)
_DEPTH = 3  # folders between the root of a build tree and its bootable image: arch/x86/boot


@dataclass(frozen=True)
class Vmlinux:
    """A ``vmlinux`` with symbols, and the address at which it was linked to begin."""

    path: Path
    begin: int


@dataclass(frozen=True)
class Search:
    """What a search has found. `others` are files that are not of this kernel, and why."""

    found: Vmlinux | None
    others: tuple[str, ...] = ()


def find_vmlinux(kernel: Kernel, own_id: str) -> Search:
    """Finds the ``vmlinux`` of `kernel` with symbols.

    `own_id` is the build id in hexadecimal that the running kernel tells; it is empty if it tells none. A
    file with another build id is of another build: its symbols would be wrong.
    """
    others = []
    for path in dict.fromkeys(_places(kernel, own_id)):
        try:
            with open_elf(path, only_debug=True) as elf:
                if elf.get_section_by_name(".symtab") is None:
                    continue
                its_id, segments = build_id(elf), loaded_segments(elf)
        except FileNotFoundError:
            continue
        except (OSError, ElfError) as error:
            others.append(f"{path} can't be read: {error}")
            continue
        if own_id and its_id != own_id:
            others.append(f"{path} is of another build: its build id is {its_id or 'missing'}, not {own_id}")
        elif segments:
            return Search(Vmlinux(path, segments[0]["p_vaddr"]), tuple(others))
    return Search(None, tuple(others))


def _places(kernel: Kernel, own_id: str) -> Iterator[Path]:
    source = Path(kernel.source)
    if source.is_absolute():  # where `bpfmaps kernels add` or --bpf-kernel=PATH took it from
        yield source / "vmlinux"
        yield from (folder / "vmlinux" for folder in [*source.parents][_DEPTH : _DEPTH + 1])
    if kernel.vmlinux is not None:
        yield kernel.vmlinux
    if own_id:
        yield _DEBUG / ".build-id" / own_id[:2] / f"{own_id[2:]}.debug"
    yield from (Path(place.format(release=kernel.release)) for place in _INSTALLED)


def how_to_get_it(kernel: Kernel) -> str:
    """Returns how a person gets the ``vmlinux`` of `kernel` with symbols."""
    if Path(kernel.source).is_absolute():
        return (
            "build the kernel with CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y (before Linux 5.18: "
            "CONFIG_DEBUG_INFO=y), and keep its vmlinux"
        )
    if kernel.source.startswith("debian:"):
        package = f"linux-image-{kernel.release}-dbg"
        return (
            f"the package {package} of {kernel.source} has it (6 GB); to have only this file: "
            f"apt-get download {package}; "
            f"dpkg --fsys-tarfile {package}_*.deb | tar -x --wildcards '*/vmlinux-*'"
        )
    return "install the package with the debugging information of this kernel (kernel-debuginfo, -dbgsym)"
