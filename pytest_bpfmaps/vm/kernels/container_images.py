"""Fetches a kernel that is in a container image: from a layout on this machine, or from a registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pytest_bpfmaps.cache import staging
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels import oci_layout
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, check_name
from pytest_bpfmaps.vm.kernels.container_kernel import build
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.package import Package
from pytest_bpfmaps.vm.kernels.progress import Progress

_REGISTRY = re.compile(r"(?:oci|docker)://(?P<reference>[^\s]+)")
_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._:/-]*?)(?::(?P<tag>[\w.-]+))?(?:@sha256:(?P<digest>[0-9a-f]{64}))?"
)


def fetch(
    spec: str, catalogue: Catalogue, progress: Progress, name: str | None, pinned: Sequence[Package] | None
) -> tuple[Kernel, bool]:
    """Stores the kernel of an image. Returns it, and whether it is new; see `fetch.fetch`.

    `pinned` has the image's digest. Raises VmError: no such image, an image that can't be verified, no
    skopeo.
    """
    if name is not None:
        check_name(name)
    digest = pinned[0].sha256 if pinned else None
    with ExitStack() as stack:
        if match := _REGISTRY.fullmatch(spec):
            found = _in_registry(spec, match["reference"], digest, progress)
        else:
            path, tag = _parse(spec)
            work = stack.enter_context(staging.staging(catalogue.root))
            layout = stack.enter_context(oci_layout.opened(path, work))
            found = _in_layout(layout, tag, digest, progress)
        stored = catalogue.stored(found.source, [found.package], name)
        if stored is not None:
            return stored, False
        return catalogue.store(found.build, name), True


@dataclass(frozen=True)
class _Found:
    """An image that was found: what it is, and how to put its kernel into a folder."""

    source: str
    package: Package
    build: Callable[[Path], None]


def _parse(spec: str) -> tuple[Path, str | None]:
    text = spec.removeprefix("oci:")
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag or Path(text).expanduser().exists():
        name, tag = text, ""
    path = Path(os.path.realpath(Path(name).expanduser()))  # Path.resolve has no answer to a loop of links
    if not oci_layout.is_layout(path):
        why = "it is no OCI image layout" if path.exists() else f"there is no {path}"
        fix = "name a folder that holds oci-layout, such as: skopeo copy docker://REFERENCE oci:FOLDER:TAG"
        raise VmError("cannot fetch kernel", on=repr(spec), why=why, fix=fix)
    return path, tag or None


def _in_layout(layout: oci_layout.Layout, tag: str | None, digest: str | None, progress: Progress) -> _Found:
    image = layout.image(tag if digest is None else None, digest)
    source = f"oci:{layout.path}" + (f":{tag}" if tag else "")
    package = Package(layout.path.name, image.sha256, tag or "")
    return _Found(source, package, lambda tree: build(image, tree, source, progress, package))


def _in_registry(spec: str, reference: str, digest: str | None, progress: Progress) -> _Found:
    match = _REFERENCE.fullmatch(reference)
    if match is None or "/" not in match["name"]:
        fix = "write oci://REGISTRY/NAME:TAG"
        raise VmError("cannot fetch kernel", on=repr(spec), why="it is not the name of an image", fix=fix)
    _need_skopeo(spec, reference)
    progress.step(f"{spec}: asking the registry")
    digest = digest or match["digest"] or _ask(spec, reference)
    exact = f"{match['name']}@sha256:{digest}"
    package = Package(match["name"], digest, match["tag"] or "")

    def copy(tree: Path) -> None:
        progress.step(f"{spec}: getting {exact}")
        with tempfile.TemporaryDirectory(dir=tree.parent) as folder:
            _skopeo(spec, "copy", "--quiet", f"docker://{exact}", f"oci:{folder}:image")
            layout = oci_layout.Layout(Path(folder), Path(folder))
            build(layout.image("image"), tree, spec, progress, package)

    return _Found(spec, package, copy)


def _ask(spec: str, reference: str) -> str:
    """Returns the digest of what the registry has under that name now."""
    return sha256(_skopeo(spec, "inspect", "--raw", f"docker://{reference}")).hexdigest()


def _need_skopeo(spec: str, reference: str) -> None:
    if shutil.which("skopeo") is None:
        raise VmError(
            "cannot fetch kernel",
            on=repr(spec),
            why="this system has no skopeo, which speaks to registries",
            fix=f"install skopeo; or copy the image on another machine (skopeo copy docker://{reference} "
            "oci:FOLDER:TAG), bring FOLDER here, and: bpfmaps kernels fetch oci:FOLDER:TAG",
        )


def _skopeo(spec: str, *arguments: str) -> bytes:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        logged = re.search(r'level=fatal msg="(.*)"$', said, re.M)
        details = logged[1].replace('\\"', '"') if logged else said
        fix = "see whether the name is right and the registry can be reached; skopeo login REGISTRY logs in"
        raise VmError("cannot fetch kernel", on=repr(spec), why="skopeo failed", details=details, fix=fix)
    return done.stdout
