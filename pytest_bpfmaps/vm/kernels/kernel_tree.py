"""An unpacked kernel in the standard layout, made complete: checked, indexed, and taken apart for quick use.

boot/vmlinuz-RELEASE  boot/config-RELEASE  lib/modules/RELEASE/   as the package has them
vmlinux  btf  kernel.json                                         made here
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.kernel_image import (
    KernelImage,
    has_pvh_entry,
    read_btf,
    read_config,
    read_image,
    unpack_vmlinux,
)
from pytest_bpfmaps.vm.kernels.kernel_json import write_facts
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.progress import Progress

FORMAT = 1


def find_image(tree: Path) -> Path | None:
    """Returns the kernel image of an unpacked package: the newest ``boot/vmlinuz-*`` that is a file."""
    images = [p for p in tree.glob("boot/vmlinu[xz]-*") if p.is_file()]
    return max(images, default=None, key=lambda p: (p.name.startswith("vmlinuz"), p.stat().st_mtime))


def complete(tree: Path, *, source: str, progress: Progress, packages: Sequence[Package] = ()) -> None:
    """Checks the kernel in `tree`, and adds module index, BTF, vmlinux and ``kernel.json``.

    `source` is where it came from. Raises VmError when it has no kernel image, or another kernel's modules.
    """
    path = find_image(tree)
    if path is None:
        raise VmError("no kernel image in", on=source, why="it has no boot/vmlinuz-* file")
    image = read_image(path)
    _check_modules(tree, image, source)
    modules = tree / "lib/modules" / image.release
    if modules.is_dir() and not (modules / "modules.dep").exists():  # only installed kernels have one
        progress.step(f"indexing modules of {image.release}")
        run_depmod(tree, image.release)
    progress.step(f"unpacking kernel {image.release}")
    _take_apart(tree, image)
    facts = {
        "format": FORMAT,
        "release": image.release,
        "arch": image.arch,
        "image": str(path.relative_to(tree)),
        "source": source,
        "packages": [package.to_json() for package in packages],
        "size": size_of(tree),
    }
    write_facts(tree, facts)


def _check_modules(tree: Path, image: KernelImage, source: str) -> None:
    folder = tree / "lib/modules"
    found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if found and image.release not in found:
        raise VmError(
            "kernel image and modules do not belong together in",
            on=source,
            why=f"the image is release {image.release}, the modules are for {', '.join(found)}",
            fix="take both from the same build",
        )


def _take_apart(tree: Path, image: KernelImage) -> None:
    vmlinux = tree / "vmlinux"
    unpack_vmlinux(image, vmlinux)
    if btf := read_btf(vmlinux):
        (tree / "btf").write_bytes(btf)
    config = tree / "boot" / f"config-{image.release}"
    if not config.exists() and (text := read_config(vmlinux)):
        config.write_bytes(text)
    if not has_pvh_entry(vmlinux):
        vmlinux.unlink()


def run_depmod(tree: Path, release: str) -> None:
    """Writes ``modules.dep`` and the other indexes of ``lib/modules/RELEASE`` below `tree`, by depmod(8)."""
    depmod = shutil.which("depmod") or shutil.which("depmod", path="/usr/sbin:/sbin")
    if depmod is None:
        raise VmError("cannot index the modules of", on=release, why="no depmod", fix="install kmod")
    done = subprocess.run([depmod, "-b", str(tree), release], capture_output=True, text=True, check=False)
    if done.returncode:
        raise VmError("cannot index the modules of", on=release, why=f"depmod: {done.stderr.strip()}")


def size_of(tree: Path) -> int:
    """Returns the bytes on disk below `tree`."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512
        for folder, _, names in os.walk(tree)
        for name in names
    )
