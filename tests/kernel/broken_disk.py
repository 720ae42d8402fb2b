"""Makes the kernel warn: a file system continues after its disk refused a write.

This runs in guests. A minix file system keeps the map of its inodes in a buffer. The disk is a loop device
over a file in a full tmpfs. So the buffer can't be written, and becomes invalid. The next new file changes
the buffer, and mark_buffer_dirty() warns. It warns once (`WARN_ON_ONCE`), until somebody resets that. Linux
5.10 to 7.2 do so.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess
from pathlib import Path

BLOCK, BLOCKS, INODES = 1024, 64, 32
LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82
PUNCH_HOLE = 3
MNT_DETACH = 2
libc = ctypes.CDLL(None, use_errno=True)


def warn(folder: Path) -> None:
    """Makes the kernel warn. `folder` must be empty."""
    for module in ("loop", "minix"):
        subprocess.run(["modprobe", module], check=True)
    ram, files = folder / "ram", folder / "files"
    ram.mkdir()
    files.mkdir()
    _mount("none", ram, "tmpfs", f"size={2 * BLOCK * BLOCKS}")
    with open("/dev/loop-control", "rb") as control:
        device = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
    (ram / "image").write_bytes(image())
    with open(ram / "image", "r+b") as file, open(device, "r+b", buffering=0) as disk:
        fcntl.ioctl(disk, LOOP_SET_FD, file.fileno())
        _mount(device, files, "minix")
        try:
            (files / "one").touch()
            libc.fallocate(file.fileno(), PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(BLOCK * BLOCKS))
            _fill(ram / "filler")
            with contextlib.suppress(OSError):
                os.fsync(disk.fileno())
            (ram / "filler").unlink()
            (files / "two").touch()
        finally:
            libc.umount2(os.fsencode(files), MNT_DETACH)
            fcntl.ioctl(disk, LOOP_CLR_FD)
    libc.umount2(os.fsencode(ram), MNT_DETACH)


def image() -> bytes:
    """Returns an empty minix file system, version 1."""
    blocks = [bytearray(BLOCK) for _ in range(BLOCKS)]
    struct.pack_into("<HHHHHHIHH", blocks[1], 0, INODES, BLOCKS, 1, 1, 5, 0, 7 << 20, 0x137F, 1)
    blocks[2][:] = (0b11 | -1 << (INODES + 1) & (1 << 8 * BLOCK) - 1).to_bytes(BLOCK, "little")  # inodes
    blocks[3][:] = (0b11 | -1 << BLOCKS & (1 << 8 * BLOCK) - 1).to_bytes(BLOCK, "little")  # blocks
    struct.pack_into("<HHIIBB9H", blocks[4], 0, 0o40755, 0, 64, 0, 0, 2, 5, *[0] * 8)
    for index, name in enumerate((b".", b"..")):
        struct.pack_into("<H14s", blocks[5], 16 * index, 1, name)
    return b"".join(blocks)


def _mount(source: str, target: Path, kind: str, options: str = "") -> None:
    if libc.mount(source.encode(), os.fsencode(target), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(BLOCK))
