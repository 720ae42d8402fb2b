"""Reads a kernel out of a container image on this machine: an OCI image layout, a folder or a tar archive.

Sources: the OCI image specification 1.1 (``image-layout.md``, ``image-index.md``, ``manifest.md``,
``layer.md``); the layout of cilium's ci-kernels: ``boot/vmlinuz``, ``usr/lib/modules/RELEASE``.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_bpfmaps.cache.stored_files import open_file, read_any
from pytest_bpfmaps.errors import VmError, closest
from pytest_bpfmaps.vm.kernels.checked_tar import members, open_tar, output_of
from pytest_bpfmaps.vm.kernels.package_files import LEAST_ROOM, MOST_TIMES, Room

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # as Go names them
_TAG = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")
_MEMBER = re.compile(r"(\./)?(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}|blobs/sha512/[0-9a-f]{128})")
_WANTED = (("boot",), ("lib", "modules"), ("usr", "lib", "modules"))
_FIX = "copy the image again"
_MOST_JSON = 16 << 20  # bytes of an index or a manifest

Descriptor = dict[str, Any]


def is_layout(path: Path) -> bool:
    """Returns whether `path` is an OCI image layout: a folder, or a tar archive of one."""
    if path.is_dir():
        return (path / "oci-layout").is_file() and (path / "index.json").is_file()
    if not path.is_file():
        return False
    try:
        with open_tar("r", most := _room(path), path=path) as archive:
            return any(m.name.removeprefix("./") == "oci-layout" for m in members(archive, most))
    except (tarfile.TarError, EOFError, OSError):
        return False


def _room(path: Path) -> int:
    return 2 * (LEAST_ROOM + MOST_TIMES * path.stat().st_size)


@contextmanager
def opened(path: Path, work: Path) -> Iterator[Layout]:
    """Gives the layout at `path`. An archive is unpacked below `work` meanwhile. Raises VmError."""
    if path.is_dir():
        yield Layout(path, path)
        return
    with tempfile.TemporaryDirectory(dir=work) as name:
        try:
            room = Room(path, Path(name))
            with open_tar("r", room.most, path=path) as archive:
                for member in members(archive, 2 * room.most):
                    if member.isreg() and _MEMBER.fullmatch(member.name):
                        _copy(archive, member, Path(name, member.name), room)
        except (tarfile.TarError, EOFError) as error:
            raise VmError("cannot unpack", on=str(path), why=str(error), fix=_FIX) from error
        yield Layout(path, Path(name))


class Layout:
    """An OCI image layout: `path` is what the user calls it, `folder` is where it is."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self._folder = folder

    def image(self, tag: str | None = None, digest: str | None = None) -> Image:
        """Returns the image called `tag`, or with the SHA-256 `digest`, or the only one for this machine.

        Raises VmError, which names the images of the layout.
        """
        images = _descriptors(self._json(self._folder / "index.json").get("manifests"))
        if digest is not None:
            found = [d for d in images if d.get("digest") == f"sha256:{digest}"][
                :1
            ]  # several tags may have it
        elif tag is not None:
            found = [d for d in images if tag in _tags(d)]
        else:
            found = images if len(images) == 1 else [d for d in images if _fits(d)]
        if len(found) == 1:
            return Image(self, found[0])
        names = [name for d in images for name in _tags(d)[:1]]
        if digest is not None:
            why = "it has " + (", ".join(str(d.get("digest")) for d in images) or "no image")
            raise VmError("no image", on=f"sha256:{digest} in {self.path}", why=why, fix=_FIX)
        if tag is not None and not found:
            raise VmError("no image", on=f"{tag!r} in {self.path}", fix=closest(tag, names))
        why = f"it has {len(found)} images for this machine: {', '.join(names) or 'without tags'}"
        fix = f"name one: bpfmaps kernels fetch oci:{self.path}:{names[0] if names else 'TAG'}"
        raise VmError("cannot choose", on=f"an image of {self.path}", why=why, fix=fix)

    def layers(self, image: Descriptor) -> Iterator[tuple[str, Path]]:
        """Gives the digest and the verified file of each layer of `image`, the lowest first.

        Raises VmError.
        """
        for layer in _descriptors(self._manifest(image)["layers"]):
            yield str(layer.get("digest")), self._blob(layer)

    def _manifest(self, image: Descriptor) -> dict[str, Any]:
        manifest = self._json(self._blob(image))
        for _ in range(4):  # an index may list indexes
            if "manifests" not in manifest:
                break
            choices = _descriptors(manifest["manifests"])
            fitting = [d for d in choices if _fits(d)]
            if not fitting:
                have = ", ".join(_platform(d) for d in choices) or "none"
                why = f"it is for {have}, and this machine is {_machine()}"
                raise VmError(
                    "cannot use image", on=str(self.path), why=why, fix="fetch one for this machine"
                )
            manifest = self._json(self._blob(fitting[0]))
        if "layers" not in manifest:
            raise VmError("cannot use image", on=str(self.path), why="its manifest has no layers", fix=_FIX)
        return manifest

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            value = json.loads(read_any(path, _MOST_JSON))
        except (OSError, ValueError, RecursionError) as error:
            on = f"{path.name} of {self.path}"
            raise VmError("cannot read image", on=on, why=str(error), fix=_FIX) from error
        return value if isinstance(value, dict) else {}

    def _blob(self, descriptor: Descriptor) -> Path:
        """Returns the verified file that `descriptor` names."""
        digest = str(descriptor.get("digest"))
        match = _DIGEST.fullmatch(digest)
        if match is None:
            why = f"{digest!r} is neither sha256 nor sha512"
            raise VmError("cannot verify image", on=str(self.path), why=why, fix=_FIX)
        algorithm, value = match[1] or match[3], match[2] or match[4]
        path = self._folder / "blobs" / algorithm / value
        on = f"blob {digest} of {self.path}"
        try:
            with open_file(path) as file:
                actual = file_digest(file, algorithm).hexdigest()
        except OSError as error:
            raise VmError("cannot read", on=on, why=error.strerror, fix=_FIX) from error
        if actual != value:
            why = f"its content has the digest {algorithm}:{actual}"
            raise VmError("cannot trust", on=on, why=why, fix=_FIX)
        return path


@dataclass(frozen=True)
class Image:
    """One image of an open layout."""

    layout: Layout
    descriptor: Descriptor

    @property
    def sha256(self) -> str:
        """Its digest in hexadecimal. Raises VmError when it has a digest of another kind."""
        algorithm, _, value = str(self.descriptor.get("digest")).partition(":")
        if algorithm != "sha256":
            on = str(self.descriptor.get("digest"))
            raise VmError("cannot use image", on=on, why="its digest is no sha256", fix=_FIX)
        return value

    def unpack(self, root: Path) -> None:
        """Puts its kernel files below `root`, with all layers applied. Raises VmError."""
        for digest, blob in self.layout.layers(self.descriptor):
            with tempfile.TemporaryDirectory(dir=root.parent) as name:
                try:
                    _apply(blob, root, Path(name))
                except (tarfile.TarError, EOFError, OSError) as error:
                    on = f"layer {digest} of {self.layout.path}"
                    raise VmError("cannot unpack", on=on, why=str(error), fix=_FIX) from error


def _tags(image: Descriptor) -> list[str]:
    """Returns the names of an image, its tag first.

    Docker writes a whole reference, which ends in the tag.
    """
    name = str(_mapping(image, "annotations").get(_TAG, ""))
    if not name.isprintable():  # nobody has to name it, and it would change the terminal
        return []
    tag = name.rpartition("/")[2].rpartition(":")[2]
    return list(dict.fromkeys([tag, name])) if name else []


def _mapping(image: Descriptor, name: str) -> dict[str, Any]:
    value = image.get(name)
    return value if isinstance(value, dict) else {}


def _descriptors(value: object) -> list[Descriptor]:
    """Returns what is a descriptor in a list of an index or a manifest."""
    return [d for d in value if isinstance(d, dict)] if isinstance(value, list) else []


def _machine() -> str:
    return "linux/" + _ARCHITECTURES.get(platform.machine(), platform.machine())


def _platform(image: Descriptor) -> str:
    facts = _mapping(image, "platform")
    return f"{facts.get('os', 'linux')}/{facts.get('architecture', 'unknown')}"


def _fits(image: Descriptor) -> bool:
    return not image.get("platform") or _platform(image) == _machine()


def _apply(blob: Path, root: Path, work: Path) -> None:
    """Applies a layer to what is below `root`. `work` is an empty folder."""
    gone: list[PurePosixPath] = []  # files of the lower layers
    room = Room(blob, work)
    with _tar(blob, room.most) as archive:
        for member in members(archive, 2 * room.most):
            path = PurePosixPath(*PurePosixPath(member.name).parts)
            if path.is_absolute() or ".." in path.parts:
                continue
            if path.name == ".wh..wh..opq":
                gone += (path.parent / old.name for old in (root / path.parent).glob("*"))
            elif path.name.startswith(".wh."):
                hidden = path.name.removeprefix(".wh.")
                gone += [path.with_name(hidden)] if hidden not in ("", ".", "..") else []
            elif not member.isdir():
                gone.append(path)
                _extract(archive, member, path, work, room)
    for path in gone:
        _remove(root / path)
    _merge(work, root)


@contextmanager
def _tar(blob: Path, most: int) -> Iterator[tarfile.TarFile]:
    with blob.open("rb") as file:
        magic = os.pread(file.fileno(), 4, 0)  # does not move the position, from which zstd reads
        if magic != b"\x28\xb5\x2f\xfd":
            with open_tar("r|*", most, stream=file) as archive:
                yield archive
            return
        if shutil.which("zstd") is None:
            raise VmError("cannot unpack", on=blob.name, why="no zstd", fix="install zstd")
        with (
            output_of(["zstd", "-dcq"], file, most) as stream,
            open_tar("r|", most, stream=stream) as archive,
        ):
            yield archive


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath, work: Path, room: Room
) -> None:
    if not any(path.parts[: len(wanted)] == wanted for wanted in _WANTED):
        return
    target = work / path
    if member.isreg():
        _copy(archive, member, target, room)
    elif member.islnk():  # a link to a file that came before it
        earlier = PurePosixPath(member.linkname)
        if not earlier.is_absolute() and ".." not in earlier.parts and (work / earlier).is_file():
            room.take((work / earlier).stat().st_size)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(work / earlier, target)


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, room: Room) -> None:
    room.take(member.size)
    content = archive.extractfile(member)
    assert content is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(content, out, 1 << 20)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        return
    with suppress(NotADirectoryError):  # a lower layer has a file where this one has a folder
        path.unlink(missing_ok=True)


def _merge(work: Path, root: Path) -> None:
    for file in sorted(p for p in work.rglob("*") if p.is_file()):
        target = root / file.relative_to(work)
        for parent in reversed(target.relative_to(root).parents):
            if (root / parent).is_file():
                (root / parent).unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
