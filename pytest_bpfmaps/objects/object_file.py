"""An object file as libbpf has read it: its maps and programs, and what libbpf is told when it opens one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..libbpf import ffi, lib, to_str


def find_kconfig(data: bytes) -> Any:
    """The kernel's configuration for an object with ``__kconfig`` variables, where libbpf can't find it."""
    path = os.environ.get("BPFMAPS_KERNEL_CONFIG")  # a guest's, of which /boot is the host's
    if not path or b".kconfig" not in data or not Path(path).is_file():
        return ffi.NULL
    return ffi.new("char[]", Path(path).read_bytes())


def object_name(path: Path) -> str:
    """What the kernel shows before a data section's name: the file's name up to the first dot."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in path.name.split(".")[0])[:15]


def walk(step: Any, handle: Any) -> list[Any]:
    found = []
    at = step(handle, ffi.NULL)
    while at != ffi.NULL:
        found.append(at)
        at = step(handle, at)
    return found


def split_maps(handles: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The program's own maps, and those that libbpf made of data sections, by the section's name."""
    user, internal = {}, {}
    for handle in handles:
        name = to_str(lib.bpf_map__name(handle))
        if lib.bpf_map__is_internal(handle):
            internal["." + name.partition(".")[2]] = handle
        else:
            user[name] = handle
    return user, internal
