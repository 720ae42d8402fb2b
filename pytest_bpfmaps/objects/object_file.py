"""An object file as libbpf has read it: its maps and programs, and what libbpf is told when it opens one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.libbpf import ffi, lib, to_str
from pytest_bpfmaps.vm.vmlinux_h import RUNNING


def find_kconfig(data: bytes) -> Any:
    """The kernel's configuration for an object with ``__kconfig`` variables, where libbpf can't find it."""
    path = os.environ.get("BPFMAPS_KERNEL_CONFIG")  # a guest's, of which /boot is the host's
    if not path or b".kconfig" not in data or not Path(path).is_file():
        return ffi.NULL
    return ffi.new("char[]", Path(path).read_bytes())


def find_btf(given: Path | None) -> Any:
    """The file that libbpf takes the kernel's types from, where the kernel does not show them itself.

    That is `given`, else the BTF that the catalogue has for this release. Raises `LoadError` when there is no
    such file.
    """
    if given is not None and not given.is_file():
        raise LoadError(
            "cannot take the kernel's types",
            on=f"from {given}",
            why="there is no such file",
            fix="name a file with raw BTF, or an ELF file with a section .BTF: bpf.load(…, btf=PATH)",
            errno=errno.ENOENT,
        )
    found = given or (None if os.path.exists(RUNNING) else _btf_of_the_catalogue())
    return ffi.NULL if found is None else ffi.new("char[]", os.fsencode(found))


def _btf_of_the_catalogue() -> Path | None:
    path = os.environ.get("BPFMAPS_KERNEL_BTF")  # in a guest, where the catalogue is the host's
    if path is not None:
        return Path(path) if path else None
    from pytest_bpfmaps.vm.catalogue import Catalogue

    mine = os.uname().release
    return next((kernel.btf for kernel in Catalogue() if kernel.release == mine), None)


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


def created_map(handle: Any) -> int:
    """Returns the descriptor of a map of a loaded object, -1 when it was not created.

    From libbpf 1.4 on such a map has a descriptor, too: one that only keeps the number free.
    """
    fd = int(lib.bpf_map__fd(handle))
    if fd < 0 or lib.bpf_map__autocreate(handle):
        return fd
    return fd if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:bpf-map" else -1
