"""Mounts a bpf file system that only this process has."""

from __future__ import annotations

import errno

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.libbpf.calls import failure
from pytest_bpfmaps.libbpf.syscalls import open_file_system


def open_bpffs() -> int:
    """Makes a new bpf file system without a mount point, and returns a descriptor of its root folder.

    The kernel removes it when the descriptor is closed, and so also when the process ends. Its files have the
    path ``/proc/PID/fd/DESCRIPTOR/…``, also for other processes. Raises `MapError` with errno, which is
    `EPERM` without CAP_SYS_ADMIN. fsopen(2), Linux 5.2, commit 93766fbd2696.
    """
    try:
        return open_file_system("bpf")
    except OSError as e:
        raise failure(e.errno or errno.EIO, MapError, "cannot mount", on="a bpf file system") from e
