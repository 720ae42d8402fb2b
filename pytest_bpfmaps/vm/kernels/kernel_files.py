"""Copies a kernel's image, configuration and modules out of a folder into the standard layout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.kernel_image import read_image
from pytest_bpfmaps.vm.kernels.kernel_tree import find_image
from pytest_bpfmaps.vm.kernels.package_files import place

# Where a kernel build leaves its bootable image, by architecture.
_BUILT_IMAGES = ("arch/x86/boot/bzImage", "arch/arm64/boot/Image")


def built_image(folder: Path) -> Path | None:
    """Returns the bootable image of a kernel build tree, or None."""
    return next((folder / name for name in _BUILT_IMAGES if (folder / name).is_file()), None)


def packaged_image(folder: Path) -> Path | None:
    """Returns the kernel image of an unpacked package, or None."""
    beside_modules = (p for lib in ("lib", "usr/lib") for p in folder.glob(f"{lib}/modules/*/vmlinuz"))
    bare = folder / "boot/vmlinuz"  # a container image has it so
    return find_image(folder) or next(beside_modules, None) or (bare if bare.is_file() else None)


def copy_package(root: Path, tree: Path, source: str) -> None:
    """Copies image, configuration and modules of the unpacked package below `root` into `tree`."""
    image = packaged_image(root)
    if image is None:
        raise VmError(
            "cannot add kernel",
            on=source,
            why=f"it has neither boot/vmlinuz nor {_BUILT_IMAGES[0]}",
            fix="name an unpacked kernel package or a kernel tree that is built, or the image itself",
        )
    copy_modules(root, copy_image(image, tree), tree)


def copy_image(path: Path, tree: Path, config: Path | None = None) -> str:
    """Copies the image `path`, its configuration and System.map into `tree`. Returns the kernel's release.

    `config` is the path of the configuration in a build tree.
    """
    image = read_image(path)
    boot = tree / "boot"
    boot.mkdir(parents=True, exist_ok=True)
    stem = "vmlinuz" if image.format == "bzImage" else "vmlinux"
    shutil.copyfile(path, boot / f"{stem}-{image.release}")
    for name, built in (("config", config), ("System.map", config and config.with_name("System.map"))):
        beside = [path.with_name(f"{name}-{image.release}"), path.with_name(name)]
        for file in [built] if built else beside:
            if file.is_file():
                shutil.copyfile(file, boot / f"{name}-{image.release}")
                break
    return image.release


def copy_modules(root: Path, release: str, tree: Path) -> None:
    """Copies into `tree` the modules of `release` below `root` that guests may need."""
    for prefix in ("lib/modules", "usr/lib/modules"):
        for folder, _, names in os.walk(root / prefix / release):
            for name in names:
                file = Path(folder, name)
                target = place(PurePosixPath(file.relative_to(root)))
                if target is not None and file.is_file() and not (tree / target).exists():
                    (tree / target).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, tree / target)
