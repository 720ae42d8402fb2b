"""Takes out of a package what a guest needs: image, configuration, modules."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import IO

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.checked_tar import RefusedArchive, members, open_tar, output_of
from pytest_bpfmaps.vm.kernels.package import Package

MOST_TIMES, LEAST_ROOM, LEFT_FREE = 30, 64 << 20, 64 << 20  # the last two in bytes
_NO_KERNEL = "look at what it is: it is not the package of a kernel"
_CUT = "the file may be cut short: fetch it again"
_BLOCK = 4096  # bytes
BOOT_FILES = ("vmlinuz", "vmlinux", "config", "System.map")
SUFFIXES = (".deb", ".rpm")

# These commands make a tar archive of an RPM package: from standard input to standard output. Every
# distribution has the first; the second comes with rpm itself.
_RPM_COMMANDS = (("bsdtar", "-c", "-f", "-", "--format=pax", "@-"), ("rpm2archive", "-"))


class Room:
    """How much may still come out of `packed`, into the folder `target`.

    A kernel's package gives 2 to 8 times its size. A package that gives far more is no kernel's, and would
    fill the disk. Raises VmError.
    """

    def __init__(self, packed: Path, target: Path) -> None:
        self._packed, self._target = packed, target
        self.most = self._left = LEAST_ROOM + MOST_TIMES * packed.stat().st_size
        self._free = shutil.disk_usage(target).free - LEFT_FREE

    def take(self, size: int) -> None:
        """Takes `size` bytes, which are about to be written."""
        size = max(size, _BLOCK)  # an empty file takes room, too
        self._left -= size
        self._free -= size
        on = str(self._packed)
        if self._left < 0:
            why = f"it holds more than {MOST_TIMES} times its size"
            raise VmError("will not unpack", on=on, why=why, fix=_NO_KERNEL)
        if self._free < 0:
            why = f"the disk of {self._target} would be full"
            fix = "free some space, or set BPFMAPS_CACHE to a folder on another disk"
            raise VmError("cannot unpack", on=on, why=why, fix=fix)


def _nothing(size: int) -> None:
    pass


def unpack(package: Path, tree: Path) -> None:
    """Unpacks image, configuration and modules of a ``.deb`` or ``.rpm`` into `tree`.

    Raises VmError when the package is damaged, or when the tool for it is missing.
    """
    {".deb": unpack_deb, ".rpm": unpack_rpm}[package.suffix](package, tree)


def unpack_deb(package: Path, tree: Path, each: Callable[[int], None] = _nothing) -> None:
    """Unpacks a Debian package as `unpack` does. `each` is called with the size of each file in bytes."""
    if shutil.which("dpkg-deb") is None:
        raise VmError("cannot unpack", on=str(package), why="no dpkg-deb", fix="install dpkg")
    _unpack_output(("dpkg-deb", "--fsys-tarfile", str(package)), package, tree, each)


def unpack_rpm(package: Path, tree: Path) -> None:
    """Unpacks an RPM package as `unpack` does."""
    with package.open("rb") as file:
        head = file.read(5)
    if head[:4] != b"\xed\xab\xee\xdb":  # bsdtar would take many other archives, too
        raise VmError(
            "cannot unpack", on=str(package), why="it is no RPM package", fix="look at `file` of it"
        )
    is_new = head[4:] > b"\3"  # rpm 6 writes this format, and libarchive 3.8 does not know it
    commands = _RPM_COMMANDS[1:] if is_new else _RPM_COMMANDS
    command = next((c for c in commands if shutil.which(c[0])), None)
    if command is None and is_new:
        why, fix = "it has the format of rpm 6, and there is no rpm2archive", "install rpm, 6.0 or later"
        raise VmError("cannot unpack", on=str(package), why=why, fix=fix)
    if command is None:
        fix = "install libarchive-tools (Debian, Ubuntu) or bsdtar; or rpm, which has rpm2archive"
        raise VmError("cannot unpack", on=str(package), why="no bsdtar and no rpm2archive", fix=fix)
    _unpack_output(command, package, tree, _nothing)


def _unpack_output(command: tuple[str, ...], package: Path, tree: Path, each: Callable[[int], None]) -> None:
    room = Room(package, tree)
    try:
        with package.open("rb") as stdin, output_of(command, stdin, room.most) as stream:
            found = _unpack_tar(stream, tree, each, room)
    except (tarfile.TarError, EOFError) as error:
        fix = _NO_KERNEL if isinstance(error, RefusedArchive) else _CUT
        raise VmError("cannot unpack", on=str(package), why=str(error), fix=fix) from error
    if not found:  # bsdtar makes an empty archive when a header is cut off
        raise VmError("cannot unpack", on=str(package), why="it is empty", fix=_CUT)


def _unpack_tar(stream: IO[bytes], tree: Path, each: Callable[[int], None], room: Room) -> bool:
    """Unpacks an archive. Returns whether there was anything in it, wanted or not."""
    member = None
    with open_tar("r|*", room.most, stream=stream) as archive:
        for member in members(archive, 2 * room.most):
            relative = _wanted(member)
            content = archive.extractfile(member) if relative else None
            if relative is None or content is None:
                continue
            room.take(member.size)
            target = tree / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
            each(member.size)
    return member is not None


def _wanted(member: tarfile.TarInfo) -> PurePosixPath | None:
    path = PurePosixPath(member.name)
    safe = member.isreg() and not path.is_absolute() and ".." not in path.parts
    return place(path) if safe else None


def place(path: PurePosixPath) -> PurePosixPath | None:
    """Returns where a package's file belongs in our layout; None when no guest needs it."""
    parts = path.parts[1:] if path.parts[:2] == ("usr", "lib") else path.parts
    if parts[:1] == ("boot",) and path.name.startswith(tuple(f"{name}-" for name in BOOT_FILES)):
        return PurePosixPath(*parts)
    if parts[:2] != ("lib", "modules") or len(parts) < 4:
        return None
    # Kernels of Debian >= 7.2 and Fedora have all in one folder.
    if len(parts) == 4 and path.name in BOOT_FILES:
        return PurePosixPath("boot", f"{path.name}-{parts[2]}")
    return PurePosixPath(*parts)


def fingerprints(files: list[Path]) -> list[Package]:
    """Returns each file as a package, by its name and its SHA-256."""
    return [Package(file.name, sha256_of(file)) for file in files]


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
