"""Mounts a bpf file system that only this process has."""

from __future__ import annotations

import os
from typing import Any

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.libbpf.calls import failure
from pytest_bpfmaps.libbpf.library import ffi

# the same numbers on every architecture
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1
_CMD_CREATE = 6


def open_bpffs() -> int:
    """Makes a new bpf file system without a mount point, and returns a descriptor of its root folder.

    The file system vanishes with the descriptor, so also when the process ends, in whatever way. Its files
    have the path ``/proc/PID/fd/DESCRIPTOR/…``, also for other processes. Raises `MapError` with errno, which
    is `EPERM` without CAP_SYS_ADMIN. fsopen(2), Linux 5.2, commit 93766fbd2696.
    """
    libc = ffi.dlopen(None)
    context = _call(libc, _FSOPEN, ffi.new("char[]", b"bpf"), _int(_CLOEXEC))
    try:
        _call(libc, _FSCONFIG, _int(context), _int(_CMD_CREATE), ffi.NULL, ffi.NULL, _int(0))
        return _call(libc, _FSMOUNT, _int(context), _int(_CLOEXEC), _int(0))
    finally:
        os.close(context)


def _int(value: int) -> Any:
    return ffi.cast("long", value)


def _call(libc: Any, number: int, *arguments: Any) -> int:
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise failure(ffi.errno, MapError, "cannot mount", on="a bpf file system")
    return result
