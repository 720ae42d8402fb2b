"""`bpfmaps kernels fetch`: finds the source that a specification means."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.progress import Progress


def fetch(
    spec: str,
    catalogue: Catalogue,
    progress: Progress,
    name: str | None = None,
    pinned: Sequence[Package] | None = None,
) -> tuple[Kernel, bool]:
    """Stores the current kernel of `spec`, or exactly the `pinned` one. Returns it, and whether it is new.

    `spec` is ``debian:bookworm``, ``oci:PATH[:TAG]``, ``oci://REGISTRY/NAME[:TAG]``, or ``v6.6``. Raises
    VmError.
    """
    if spec.startswith(("oci:", "docker://")):
        from pytest_bpfmaps.vm.kernels import container_images

        return container_images.fetch(spec, catalogue, progress, name, pinned)
    from pytest_bpfmaps.vm.kernels import debian, mainline

    if mainline.VERSION.fullmatch(spec):
        return mainline.fetch(spec, catalogue, progress, name, pinned)

    return debian.fetch(spec, catalogue, progress, name, pinned)


def fetchable(source: str) -> bool:
    """Returns whether `fetch` knows a kernel's source. Else it is a path that was added."""
    return not source.startswith("/")
