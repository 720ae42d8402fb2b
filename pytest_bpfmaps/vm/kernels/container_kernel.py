"""Takes the kernel out of a container image."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pytest_bpfmaps.vm.kernels import oci_layout
from pytest_bpfmaps.vm.kernels.kernel_files import copy_package
from pytest_bpfmaps.vm.kernels.kernel_tree import complete
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.progress import Progress


def build(
    image: oci_layout.Image, tree: Path, source: str, progress: Progress, package: Package | None = None
) -> None:
    """Fills the folder `tree` with the kernel of `image`. Raises VmError when it has none."""
    package = package or Package(image.layout.path.name, image.sha256)
    progress.step(f"unpacking {source}")
    with tempfile.TemporaryDirectory(dir=tree.parent) as work:
        root = Path(work, "root")
        root.mkdir()
        image.unpack(root)
        copy_package(root, tree, source)
    complete(tree, source=source, packages=[package], progress=progress)
