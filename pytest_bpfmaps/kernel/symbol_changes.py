"""Finds out whether the kernel's symbols have changed, because modules or BPF programs came or went."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

from pytest_bpfmaps.libbpf import ffi, lib

_MODULES = "/sys/module"
_EVENTS = "/sys/kernel/uevent_seqnum"  # the number of the kernel's latest event about a device or module


def loaded_modules() -> frozenset[tuple[str, int]]:
    """Returns the loaded modules, each with a number that differs for another load of the same module."""
    try:
        # The event of a module that goes comes before its folder goes; then the number of folders changes.
        with open(_EVENTS, "rb", buffering=0) as file:
            return _modules_at(file.read(), os.stat(_MODULES).st_nlink)
    except OSError:  # sysfs is not mounted
        return _modules()


@lru_cache(maxsize=1)
def _modules_at(_event: bytes, _folders: int) -> frozenset[tuple[str, int]]:
    return _modules()


def _modules() -> frozenset[tuple[str, int]]:
    try:
        with os.scandir(_MODULES) as entries:
            return frozenset((entry.name, entry.inode()) for entry in entries)
    except OSError:  # sysfs is not mounted
        return _listed_modules()


def _listed_modules() -> frozenset[tuple[str, int]]:
    try:
        with open("/proc/modules") as file:
            return frozenset((line.partition(" ")[0], 0) for line in file)
    except OSError:  # a kernel without modules
        return frozenset()


def bpf_programs() -> tuple[int, ...]:
    """Returns the ids of all BPF programs, -1, and the ids of all links; no ids if this process may not ask.

    The kernel does not use an id again until it has used all of them.
    """
    return (*_ids(lib.bpf_prog_get_next_id), -1, *_ids(lib.bpf_link_get_next_id))


def _ids(next_id: Callable[[int, object], int]) -> list[int]:
    found, at = [], ffi.new("uint32_t *")
    while next_id(at[0], at) == 0:
        found.append(int(at[0]))
    return found
