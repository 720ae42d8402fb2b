"""Copies a kernel of this machine: from an image, packages, an unpacked package, or a build tree."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels import container_kernel, oci_layout
from pytest_bpfmaps.vm.kernels.kernel_files import (
    built_image,
    copy_image,
    copy_modules,
    copy_package,
    packaged_image,
)
from pytest_bpfmaps.vm.kernels.kernel_image import FIX
from pytest_bpfmaps.vm.kernels.kernel_tree import FORMAT, complete
from pytest_bpfmaps.vm.kernels.package_files import SUFFIXES, fingerprints, unpack
from pytest_bpfmaps.vm.kernels.progress import Progress


def import_path(path: Path, tree: Path, progress: Progress, more: Sequence[Path] = ()) -> None:
    """Fills the folder `tree` with the kernel at `path`; `more` are more packages of that kernel.

    Raises VmError when there is no kernel.
    """
    paths = [path, *more]
    for part in paths:
        if not part.exists():
            raise VmError("cannot add kernel", on=str(part), why="there is no such file or folder", fix=FIX)
        if more and not _is_package(part):
            fix = "name the .deb or .rpm files of one kernel, or a single image, folder or package"
            raise VmError(
                "cannot add kernel",
                on=str(part),
                why="several paths are given, and this one is no package",
                fix=fix,
            )
    tree.mkdir(exist_ok=True)
    if not more and oci_layout.is_layout(path):
        _copy_container(path, tree, progress)
        return
    for part in paths:
        progress.step(f"copying {part}")
        _copy(part, tree)
    source = " ".join(map(str, paths))
    packages = fingerprints([part for part in paths if part.is_file()])
    complete(tree, source=source, packages=packages, progress=progress)


def _copy_container(path: Path, tree: Path, progress: Progress) -> None:
    with oci_layout.opened(path, tree.parent) as layout:
        container_kernel.build(layout.image(), tree, str(path), progress)


def _is_package(path: Path) -> bool:
    return path.is_file() and path.suffix in SUFFIXES


def _copy(path: Path, tree: Path) -> None:
    if _is_package(path):
        unpack(path, tree)
    elif path.is_file():
        release = copy_image(path, tree)
        if path.parent.name == "boot":  # installed or unpacked: its modules are near
            copy_modules(path.parent.parent, release, tree)
    elif built_image(path) is not None:
        _copy_build(path, tree)
    else:
        copy_package(path, tree, str(path))


def fingerprint(path: Path) -> str:
    """Returns a file name that changes when the kernel at `path` does. Raises VmError when there is none."""
    index = path / "index.json"  # a container image has it
    image = built_image(path) or packaged_image(path) or (index if index.is_file() else path)
    try:
        facts = image.stat()
    except OSError as error:
        raise VmError("cannot use kernel", on=str(path), why=error.strerror, fix=FIX) from error
    text = f"{FORMAT} {image} {facts.st_mtime_ns} {facts.st_size} {facts.st_ino}"
    return "stamp-" + sha256(text.encode()).hexdigest()[:16]


def _copy_build(path: Path, tree: Path) -> None:
    """Does what ``make install modules_install`` does, without make, by the list that the build wrote."""
    image = built_image(path)
    assert image is not None
    release = copy_image(image, tree, path / ".config")
    target = tree / "lib/modules" / release
    order = path / "modules.order"
    if not order.is_file():
        return
    target.mkdir(parents=True)
    for line in order.read_text().split():
        # Linux < 5.3 has "kernel/" before the name; Linux >= 6.4 names the .o file.
        relative = PurePosixPath(line.removeprefix("kernel/")).with_suffix(".ko")
        if (path / relative).is_file():
            (target / "kernel" / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / relative, target / "kernel" / relative)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (path / name).is_file():
            shutil.copyfile(path / name, target / name)
