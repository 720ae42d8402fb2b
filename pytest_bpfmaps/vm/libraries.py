"""The code of libraries in a guest whose state is saved: it comes from the host's files, which are equal."""

from __future__ import annotations

import ctypes
import mmap
import os
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple

from pytest_bpfmaps.vm import guest

EXTENSION = sysconfig.get_config_var("EXT_SUFFIX")
MAP_FIXED, PROT_NONE = 0x10, 0

libc_mmap = guest.libc.mmap
libc_mmap.restype = ctypes.c_void_p
libc_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


class Mapping(NamedTuple):
    """A file's part in this process's memory, as proc_pid_maps(5) has it."""

    path: str
    start: int
    end: int
    offset: int
    rights: str

    def is_library_code(self) -> bool:
        """Python's own extension modules are none: each costs milliseconds, and nobody traces them."""
        return self.rights == "r-xp" and not self.path.endswith(EXTENSION)

    def shares_pages(self, other: Mapping) -> bool:
        """Whether a page of the file is in both."""
        mine, its = self.end - self.start, other.end - other.start
        return self.offset < other.offset + its and other.offset < self.offset + mine

    def replace(self, rights: int, flags: int, file: int = -1) -> None:
        """Maps something else there, mmap(2). Raises OSError."""
        size, offset = self.end - self.start, self.offset if file >= 0 else 0
        if libc_mmap(self.start, size, rights, flags | MAP_FIXED, file, offset) != self.start:
            raise OSError(ctypes.get_errno(), "cannot map code", self.path)


class Code(NamedTuple):
    """Libraries' code that is `there`, and that which was given up."""

    there: list[Mapping]
    given_up: list[Mapping]


def mapped_files() -> Iterator[Mapping]:
    """Those of this process. Their paths are those of the host's, also when they are deleted."""
    with open("/proc/self/maps") as maps:
        mapped = [line.split(maxsplit=5) for line in maps]
    for area, rights, offset, _, _, name in (fields for fields in mapped if len(fields) > 5):
        if name.startswith("/"):
            start, end = (int(address, 16) for address in area.split("-"))
            yield Mapping(name.strip().removesuffix(" (deleted)"), start, end, int(offset, 16), rights)


def give_up_code() -> Code:
    """Clears the code of libraries that process 1 has no use for: until the host's is there, it does not run.

    It would be the largest part of a saved state that is not needed.
    """
    with open("/proc/1/maps") as maps:
        needed = maps.read()
    mappings = list(mapped_files())
    code = [one for one in mappings if one.is_library_code()]
    given_up = [one for one in code if one.path not in needed]
    for mapping in given_up:
        mapping.replace(PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        others = (one for one in mappings if one.path == mapping.path and one != mapping)
        if not any(mapping.shares_pages(other) for other in others):
            file = os.open(mapping.path, os.O_WRONLY)
            os.pwrite(file, bytes(mapping.end - mapping.start), mapping.offset)
            os.close(file)
    return Code([one for one in code if one not in given_up], given_up)


def use_host_files(code: Code) -> None:
    """Maps libraries' code from the host's files: uprobes go into those. What runs now is read at once."""
    now = dict.fromkeys(code.there, mmap.MAP_PRIVATE | mmap.MAP_POPULATE)
    for mapping, flags in (now | dict.fromkeys(code.given_up, mmap.MAP_PRIVATE)).items():
        file = os.open(mapping.path, os.O_RDONLY)
        mapping.replace(mmap.PROT_READ | mmap.PROT_EXEC, flags, file)
        os.close(file)
