"""Bring a kernel into the standard layout: from an image, a ``.deb``, an unpacked package, a build tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.image import FIX, read_image
from pytest_bpfmaps.vm.progress import Progress
from pytest_bpfmaps.vm.tree import FORMAT, complete, find_image

# Where a kernel build leaves its bootable image, by architecture.
_BUILT_IMAGES = ("arch/x86/boot/bzImage", "arch/arm64/boot/Image")
_BOOT_FILES = ("vmlinuz", "vmlinux", "config", "System.map")


def import_path(path: Path, tree: Path, progress: Progress) -> None:
    """Fill the folder `tree` with the kernel at `path`. Raises VmError when there is none."""
    if not path.exists():
        raise VmError("cannot add kernel", on=str(path), why="there is no such file or folder", fix=FIX)
    tree.mkdir(exist_ok=True)
    progress.step(f"copying {path}")
    if path.is_file() and path.suffix == ".deb":
        unpack_deb(path, tree)
    elif path.is_file():
        release = _copy_image(path, tree)
        if path.parent.name == "boot":  # installed or unpacked: its modules are a folder away
            _copy_modules(path.parent.parent, release, tree)
    elif built_image(path) is not None:
        _copy_build(path, tree)
    elif packaged_image(path) is not None:
        _copy_package(path, tree)
    else:
        raise VmError(
            "cannot add kernel",
            on=str(path),
            why=f"the folder has neither boot/vmlinuz-* nor {_BUILT_IMAGES[0]}",
            fix="name an unpacked kernel package or a kernel tree that is built, or the image itself",
        )
    complete(tree, source=str(path), progress=progress)


def fingerprint(path: Path) -> str:
    """A file name that changes when the kernel at `path` does. Raises VmError when there is none."""
    image = built_image(path) or packaged_image(path) or path
    try:
        facts = image.stat()
    except OSError as error:
        raise VmError("cannot use kernel", on=str(path), why=error.strerror, fix=FIX) from error
    text = f"{FORMAT} {image} {facts.st_mtime_ns} {facts.st_size} {facts.st_ino}"
    return "stamp-" + sha256(text.encode()).hexdigest()[:16]


def built_image(folder: Path) -> Path | None:
    """The bootable image of a kernel build tree, or None."""
    return next((folder / name for name in _BUILT_IMAGES if (folder / name).is_file()), None)


def _copy_image(path: Path, tree: Path, config: Path | None = None) -> str:
    image = read_image(path)
    boot = tree / "boot"
    boot.mkdir(parents=True, exist_ok=True)
    stem = "vmlinuz" if image.format == "bzImage" else "vmlinux"
    shutil.copyfile(path, boot / f"{stem}-{image.release}")
    beside = [path.with_name(f"config-{image.release}"), path.with_name("config")]
    for file in [config] if config else beside:
        if file.is_file():
            shutil.copyfile(file, boot / f"config-{image.release}")
            break
    return image.release


def _copy_package(path: Path, tree: Path) -> None:
    image = packaged_image(path)
    assert image is not None
    _copy_modules(path, _copy_image(image, tree), tree)


def _copy_modules(root: Path, release: str, tree: Path) -> None:
    for prefix in ("lib/modules", "usr/lib/modules"):
        for folder, _, names in os.walk(root / prefix / release):
            for name in names:
                file = Path(folder, name)
                place = _place(PurePosixPath(file.relative_to(root)))
                if place is not None and file.is_file() and not (tree / place).exists():
                    (tree / place).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, tree / place)


def _copy_build(path: Path, tree: Path) -> None:
    """What ``make install modules_install`` would do, without make, from the list that the build wrote."""
    image = built_image(path)
    assert image is not None
    release = _copy_image(image, tree, path / ".config")
    target = tree / "lib/modules" / release
    order = path / "modules.order"
    if not order.is_file():
        return
    target.mkdir(parents=True)
    for line in order.read_text().split():
        # Linux < 5.3 has "kernel/" in front, >= 6.4 names the .o file
        relative = PurePosixPath(line.removeprefix("kernel/")).with_suffix(".ko")
        if (path / relative).is_file():
            (target / "kernel" / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / relative, target / "kernel" / relative)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (path / name).is_file():
            shutil.copyfile(path / name, target / name)


def unpack_deb(package: Path, tree: Path, each: Callable[[int], None] = lambda size: None) -> None:
    """Unpack image, configuration and modules of a Debian package into `tree`.

    `each` is told the bytes of each file. Raises VmError when the package is damaged or dpkg-deb is missing.
    """
    if shutil.which("dpkg-deb") is None:
        raise VmError("cannot unpack", on=str(package), why="no dpkg-deb", fix="install dpkg")
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dpkg:
        assert dpkg.stdout is not None
        assert dpkg.stderr is not None
        try:
            _unpack_tar(dpkg.stdout, tree, each)
        except tarfile.TarError:
            pass  # dpkg-deb says why
        except BaseException:
            dpkg.kill()
            raise
        dpkg.stdout.read()
        why = dpkg.stderr.read().decode(errors="replace").strip()
    if dpkg.returncode:
        raise VmError(
            "cannot unpack", on=str(package), why=why, fix="the file may be cut short: fetch it again"
        )


def _unpack_tar(stream: IO[bytes], tree: Path, each: Callable[[int], None]) -> None:
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
        for member in archive:
            relative = _wanted(member)
            content = archive.extractfile(member) if relative else None
            if relative is None or content is None:
                continue
            target = tree / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
            each(member.size)


def _wanted(member: tarfile.TarInfo) -> PurePosixPath | None:
    path = PurePosixPath(member.name)
    safe = member.isreg() and not path.is_absolute() and ".." not in path.parts
    return _place(path) if safe else None


def _place(path: PurePosixPath) -> PurePosixPath | None:
    """Where a package's file belongs in our layout; None when no guest needs it."""
    parts = path.parts[1:] if path.parts[:2] == ("usr", "lib") else path.parts
    if parts[:1] == ("boot",) and path.name.startswith(tuple(f"{name}-" for name in _BOOT_FILES)):
        return PurePosixPath(*parts)
    if parts[:2] != ("lib", "modules") or len(parts) < 4:
        return None
    if len(parts) == 4 and path.name in _BOOT_FILES:  # Debian >= 7.2, Fedora: all in one folder
        return PurePosixPath("boot", f"{path.name}-{parts[2]}")
    return PurePosixPath(*parts)


def packaged_image(folder: Path) -> Path | None:
    """The kernel image of an unpacked package, or None."""
    beside_modules = (p for lib in ("lib", "usr/lib") for p in folder.glob(f"{lib}/modules/*/vmlinuz"))
    return find_image(folder) or next(beside_modules, None)
