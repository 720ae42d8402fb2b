"""Registers struct_ops maps."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.attach.links import Link
from pytest_bpfmaps.errors import AttachError, Explanation
from pytest_bpfmaps.libbpf import capture_log, ffi, lib
from pytest_bpfmaps.libbpf.calls import reason

_REFUSALS = {
    errno.EEXIST: Explanation(
        "another struct of that name is registered already",
        "give it another name in its struct, .name = …, by which the subsystem identifies it",
    ),
    errno.EBUSY: Explanation(
        "it is registered already, or the kernel still uses it after it was unregistered",
        "close the link, or what uses the struct, first",
    ),
    errno.EINVAL: Explanation(
        "the kernel's subsystem requires functions that it lacks, or other values in its fields",
        "read the reason in the kernel's log: dmesg",
    ),
}


def register_struct_ops(handle: Any, on: str) -> Link:
    """Registers the struct of a map with the kernel's subsystem, until the link is closed.

    Raises `AttachError` with errno. Linux 5.6, commit 85d33df357b6.
    """
    with capture_log() as log:
        link = lib.bpf_map__attach_struct_ops(handle)
        number = ffi.errno
    if link != ffi.NULL:
        return Link(link, on)
    why, fix = _REFUSALS.get(number, Explanation(""))
    why = f"{why} ({reason(number)})" if why else reason(number)
    raise AttachError("cannot register", on=on, why=why, details=log.text or None, fix=fix, errno=number)
