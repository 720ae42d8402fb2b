"""Tests `bpfmaps kernels fetch` with the system's own mirror. Needs the network and some 100 MB of disk.

The packages are real, and QEMU boots their kernels here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shown_blocks import shows

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel import Kernel

pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt and a Debian mirror")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("cache")
    yield root
    shutil.rmtree(root)  # pytest would keep the last three folders


@pytest.fixture(scope="module")
def bookworm(root: Path) -> Kernel:
    done = fetch(root, "debian:bookworm")
    assert done.returncode == 0, done.stderr
    shows("kernels.md", "getting linux-image", done.stderr + done.stdout)
    return Catalogue(root / "kernels").get("6.1")


def fetch(root: Path, *specs: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_bpfmaps.cli", "kernels", "fetch", *specs]
    environment = {**os.environ, "BPFMAPS_CACHE": str(root)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_layout(bookworm: Kernel, root: Path) -> None:
    tree = root / "kernels" / "6.1"
    assert bookworm.release.startswith("6.1.0-")
    assert "cloud" not in bookworm.release
    assert bookworm.image == tree / "boot" / f"vmlinuz-{bookworm.release}"
    assert bookworm.modules == tree
    modules = tree / "lib/modules" / bookworm.release
    assert "kernel/fs/9p/9p.ko" in (modules / "modules.dep").read_text()
    assert bookworm.config is not None
    assert "CONFIG_DEBUG_INFO_BTF=y" in bookworm.config.read_text()
    assert json.loads((tree / "kernel.json").read_text())["source"] == "debian:bookworm"


def test_modules_resolve(bookworm: Kernel) -> None:
    command = ["modprobe", "-d", str(bookworm.modules), "-S", bookworm.release, "--show-depends", "9p"]
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert "9pnet.ko" in done.stdout


def test_btf_is_the_kernels(bookworm: Kernel) -> None:
    assert bookworm.btf is not None
    data = bookworm.btf.read_bytes()
    assert data[:2] == b"\x9f\xeb"
    assert b"\0task_struct\0" in data


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs QEMU")
def test_uncompressed_kernel_boots(bookworm: Kernel) -> None:
    command = [
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-cpu",
        "max,la57=off",
        "-m",
        "256",
        "-nographic",
        "-nodefaults",
    ]
    command += ["-serial", "stdio", "-no-reboot", "-kernel", str(bookworm.vmlinux)]
    command += ["-append", "console=ttyS0 panic=-1 mitigations=off nokaslr"]
    done = subprocess.run(command, capture_output=True, timeout=300, check=True, stdin=subprocess.DEVNULL)
    assert f"Linux version {bookworm.release} ".encode() in done.stdout
    assert b"Unable to mount root fs" in done.stdout  # the kernel has booted, and has no root file system


def test_again_is_up_to_date(bookworm: Kernel, root: Path) -> None:
    before = bookworm.image.stat().st_ino
    done = fetch(root, "debian:bookworm")
    assert done.returncode == 0, done.stderr
    assert "is up to date" in done.stdout
    assert bookworm.image.stat().st_ino == before


def test_image_of_the_package_can_be_added(bookworm: Kernel, tmp_path: Path) -> None:
    image = shutil.copy(bookworm.image, tmp_path / "bzImage")
    kernel = Catalogue(tmp_path / "kernels").add(image)
    assert kernel.release == bookworm.release
    assert kernel.btf is not None
    assert bookworm.btf is not None
    assert kernel.btf.read_bytes() == bookworm.btf.read_bytes()


def test_system_is_untouched(bookworm: Kernel) -> None:
    done = subprocess.run(
        ["dpkg-query", "-l", f"linux-image-{bookworm.release}"], capture_output=True, check=False
    )
    assert done.returncode == 1


def test_suite_that_the_mirror_does_not_have(root: Path) -> None:
    done = fetch(root, "debian:bokworm")
    assert done.returncode == 1
    assert "has no suite 'bokworm'" in done.stderr
    assert "did you mean 'bookworm'?" in done.stderr


def test_newest_suite_keeps_the_standard_layout(root: Path) -> None:
    """Debian >= 7.2 has the image beside the modules, in three packages, and compresses modules."""
    done = fetch(root, "debian:sid", "--name", "latest")
    assert done.returncode == 0, done.stderr
    kernel = Catalogue(root / "kernels").get("latest")
    assert kernel.image.name == f"vmlinuz-{kernel.release}"
    assert kernel.config is not None
    assert kernel.modules is not None
    modules = kernel.modules / "lib/modules" / kernel.release
    assert "kernel/fs/9p/9p.ko.xz:" in (modules / "modules.dep").read_text()
    assert kernel.btf is not None
    assert kernel.vmlinux is not None
