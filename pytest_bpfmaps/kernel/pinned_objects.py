"""Finds what is pinned in the bpf file systems that a process sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pytest_bpfmaps.kernel.held_objects import HeldObjects, ids_in
from pytest_bpfmaps.kernel.mounts import parse_mounts
from pytest_bpfmaps.libbpf import lib

_MOST = 100_000  # folders
_OF_KERNEL = ("maps.debug", "progs.debug")  # every bpf file system has them where CONFIG_BPF_PRELOAD is set


@dataclass(frozen=True, slots=True)
class Pin:
    """A pin. `path` is its path in the process; `inode` distinguishes it from a later one at that path.

    `made` is when it was made, in nanoseconds since 1970.
    """

    path: str
    inode: int
    made: int = field(compare=False)


def pins_below(pid: int, folder: str) -> set[Pin]:
    """Returns the pins in a folder of a process, which a bpf file system is mounted at."""
    return set(_walk(f"/proc/{pid}/root", folder))


def pins_of(pid: int | str = "self") -> set[Pin]:
    """Returns the pins in all bpf file systems that are mounted in a process's mount namespace."""
    try:
        mounts = list(parse_mounts(Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape")))
    except OSError:
        return set()
    points = {mount.point for mount in mounts if mount.kind == "bpf"}
    return {pin for point in points for pin in _walk(f"/proc/{pid}/root", point)}


def _walk(root: str, point: str) -> Iterator[Pin]:
    for seen, (folder, _, names) in enumerate(os.walk(root + point)):
        for name in names:
            if name in _OF_KERNEL:
                continue
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            yield Pin(path.removeprefix(root), status.st_ino, status.st_mtime_ns)
        if seen > _MOST:
            return


def pinned_at(path: str, pid: int | str = "self") -> HeldObjects | None:
    """Returns the ids of what is pinned at a path of a process; None if it can't be opened."""
    fd = int(lib.bpf_obj_get(os.fsencode(f"/proc/{pid}/root{path}")))
    if fd < 0:
        return None
    try:
        return ids_in(f"/proc/self/fdinfo/{fd}")
    finally:
        os.close(fd)
