"""Writes an initramfs: a cpio archive in the ``newc`` format.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_MAGIC = "070701"


class Cpio:
    """An archive that is written entry by entry. Paths are absolute, as the guest sees them.

    Adding a file also adds the folders above it, and the links on the way, as this machine has them. `read`
    returns a file's content.
    """

    def __init__(self, out: BinaryIO, read: Callable[[Path], bytes] = Path.read_bytes) -> None:
        self._out = out
        self._read = read
        self._inode = 0
        self._added: set[str] = set()

    def add_tree(self, path: str) -> None:
        """Adds what is at `path` on this machine, under the same name: file, link and target, or folder."""
        folder = os.path.dirname(path)
        if folder != "/":
            self.add_tree(folder)
            real = os.path.realpath(folder)
            if real != folder:  # the folder is a link; the file is in its target
                path = os.path.join(real, os.path.basename(path))
                self.add_tree(path)
                return
        if path in self._added:
            return
        self._added.add(path)
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)
            self._entry(path, status.st_mode, os.fsencode(target), status.st_mtime)
            self.add_tree(os.path.normpath(os.path.join(os.path.dirname(path), target)))
        elif stat.S_ISDIR(status.st_mode):
            self._entry(path, stat.S_IFDIR | 0o755, b"", status.st_mtime)
        else:
            mode = stat.S_IFREG | (status.st_mode & 0o777)
            self._entry(path, mode, self._read(Path(path)), status.st_mtime)

    def add_bytes(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a file with that content, unless the archive has a file of that name."""
        if path in self._added:
            return
        self.add_folder(os.path.dirname(path))
        self._added.add(path)
        self._entry(path, stat.S_IFREG | mode, data, 0)

    def add_folder(self, path: str) -> None:
        """Adds an empty folder, and the folders above it."""
        if path == "/" or path in self._added:
            return
        self.add_folder(os.path.dirname(path))
        self._added.add(path)
        self._entry(path, stat.S_IFDIR | 0o755, b"", 0)

    def add_device(self, path: str, major: int, minor: int) -> None:
        """Adds a character device."""
        self.add_folder(os.path.dirname(path))
        self._entry(path, stat.S_IFCHR | 0o600, b"", 0, (major, minor))

    def close(self) -> None:
        """Writes the end mark. The file stays open."""
        self._entry("/TRAILER!!!", 0, b"", 0)

    def _entry(
        self, path: str, mode: int, data: bytes, mtime: float, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        name = os.fsencode(path[1:]) + b"\0"
        fields = (self._inode, mode, 0, 0, 1, int(mtime), len(data), 0, 0, *device, len(name), 0)
        header = (_MAGIC + "".join(f"{n:08x}" for n in fields)).encode()
        self._out.write(header + name + _pad(len(header) + len(name)) + data + _pad(len(data)))


def _pad(length: int) -> bytes:
    return bytes(-length % 4)
