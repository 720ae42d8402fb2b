"""Maps the code and the constants of libraries from the host's files, in a guest from a saved state."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sysconfig
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pytest_bpfmaps.elf.process_mappings import DELETED, Mapping, mappings_of, parse_mappings
from pytest_bpfmaps.vm.guest import init

EXTENSION = sysconfig.get_config_var("EXT_SUFFIX")
LARGE = 256 << 10
PRESENT, OF_A_FILE = 1 << 63, 1 << 61  # bits of /proc/PID/pagemap: Documentation/admin-guide/mm/pagemap.rst
ANONYMOUS = re.compile(r"^Anonymous: +(\d+) kB$", re.MULTILINE)
MAP_FIXED, PROT_NONE = 0x10, 0
RIGHTS = {"r-xp": mmap.PROT_READ | mmap.PROT_EXEC, "r--p": mmap.PROT_READ}

libc_mmap = init.libc.mmap
libc_mmap.restype = ctypes.c_void_p
libc_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


@dataclass(frozen=True, slots=True)
class MappedPart(Mapping):
    """A part of a file in this process's memory.

    `own`: kilobytes that this process has changed (``Anonymous:`` in proc_pid_smaps(5)).
    """

    own: int

    def is_library_code(self) -> bool:
        """Returns whether it is code of a library, but not of Python's own extension modules.

        Each of these costs milliseconds, and nobody traces them.
        """
        return self.rights == "r-xp" and not self.path.endswith(EXTENSION)

    def is_as_in_the_file(self) -> bool:
        """Returns whether it is code or constants, and not what the loader has relocated."""
        return self.rights in RIGHTS and not self.own

    def is_large(self) -> bool:
        """Returns whether it is so large that it is worth a millisecond."""
        return self.end - self.start >= LARGE

    def pages(self) -> range:
        """Returns where its pages begin in the file."""
        return range(self.offset, self.offset + self.end - self.start, mmap.PAGESIZE)

    def read_again(self, flags: int = 0) -> None:
        """Maps it from the file that has its path now. Raises OSError."""
        file = os.open(self.path, os.O_RDONLY)
        self.replace(RIGHTS[self.rights], mmap.MAP_PRIVATE | flags, file)
        os.close(file)

    def replace(self, rights: int, flags: int, file: int = -1) -> None:
        """Maps something else in its place, mmap(2). Raises OSError."""
        size, offset = self.end - self.start, self.offset if file >= 0 else 0
        if libc_mmap(self.start, size, rights, flags | MAP_FIXED, file, offset) != self.start:
            raise OSError(ctypes.get_errno(), "cannot map", self.path)


class Parts(NamedTuple):
    """Libraries' code: the parts that are `there`, and the parts that were `given_up`."""

    there: list[MappedPart]
    given_up: list[MappedPart]


def mapped_files(process: int | str = "self") -> Iterator[MappedPart]:
    """Gives the parts of files that a process maps, by paths that the host has, too."""
    text = Path(f"/proc/{process}/smaps").read_text(errors="surrogateescape")
    own = [int(kilobytes) for kilobytes in ANONYMOUS.findall(text)]
    for m, changed in zip(parse_mappings(text), own, strict=True):
        if m.is_file and not m.path.endswith(DELETED):
            yield MappedPart(m.start, m.end, m.rights, m.offset, m.inode, m.path, changed)


def give_up_parts() -> Parts:
    """Clears code and constants of libraries that process 1 does not use, and returns them.

    Nothing of them runs until the host's files are there. They would be the largest part of a saved state
    that is not needed. Parts of which each process has a copy, such as what the loader relocated, are not
    needed, too.
    """
    needed = {mapping.path for mapping in mappings_of(1)}
    mappings = list(mapped_files())
    code = [one for one in mappings if one.is_library_code()]
    libraries = {one.path for one in code}
    able = [one for one in mappings if one.path not in needed and one.is_as_in_the_file()]
    given_up = [one for one in able if one.path in libraries or one.is_large()]
    for mapping in given_up:
        mapping.replace(PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    clear({one.path for one in mappings})
    return Parts([one for one in code if one not in given_up], given_up)


def clear(paths: set[str]) -> None:
    """Overwrites files of the root file system with zeros, except what this process or process 1 reads."""
    needed = [read_again("1"), read_again("self")]
    for path in paths:
        with suppress(OSError):  # the program that runs can't be written
            file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
            status, read = os.fstat(file), set[int]().union(*(one.get(path, ()) for one in needed))
            if status.st_dev == os.lstat("/").st_dev:
                for page in range(0, status.st_size, mmap.PAGESIZE):
                    if page not in read:
                        os.pwrite(file, bytes(min(mmap.PAGESIZE, status.st_size - page)), page)
            os.close(file)


def read_again(process: int | str) -> dict[str, set[int]]:
    """Returns, by file, where the pages begin that a process maps and has no copy of."""
    found: dict[str, set[int]] = {}
    with open(f"/proc/{process}/pagemap", "rb", 0) as pagemap:
        for mapping in mapped_files(process):
            pages = mapping.pages()
            facts = array("Q", os.pread(pagemap.fileno(), 8 * len(pages), mapping.start // mmap.PAGESIZE * 8))
            copied = (fact & PRESENT and not fact & OF_A_FILE for fact in facts)
            read = {page for page, is_copied in zip(pages, copied, strict=True) if not is_copied}
            found.setdefault(mapping.path, set()).update(read)
    return found


def use_host_files(parts: Parts) -> None:
    """Maps libraries' code from the host's files, to which uprobes attach. Reads at once what runs now."""
    for mapping in parts.there:
        mapping.read_again(mmap.MAP_POPULATE)
    for mapping in parts.given_up:
        mapping.read_again()
