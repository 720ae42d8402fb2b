"""The few facts that we need about a kernel or a program: its machine, its sections, its loader.

Reads 64-bit little-endian ELF files through `mmap`; a debug kernel of a gigabyte costs nothing.
Source: elf(5), and ``include/xen/interface/elfnote.h`` for the note's number.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_SHT_NOTE = 7
_PT_INTERP = 3
_XEN_ELFNOTE_PHYS32_ENTRY = 18

TYPES = {1: "relocatable object", 2: "executable", 3: "program or shared library", 4: "core dump"}
MACHINES = {
    3: "x86",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    247: "bpf",
    258: "loongarch64",
}


@dataclass(frozen=True)
class Section:
    """One section of an ELF file: `offset` and `size` in bytes."""

    name: str
    type: int
    offset: int
    size: int


class Elf:
    """An ELF file in memory. Raises ValueError when `data` is not a whole 64-bit little-endian one."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        if len(data) < _HEADER.size or data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF file")
        self._data = data
        fields = _HEADER.unpack_from(data)
        self.type, self.machine = fields[1], fields[2]
        self._segments = fields[5], fields[9], fields[10]
        table, (size, count, names) = fields[6], fields[11:14]
        if count and (size < _SECTION.size or table + count * size > len(data)):
            raise ValueError("its section table lies outside of the file")
        headers = [_SECTION.unpack_from(data, table + i * size) for i in range(count)]
        strings = headers[names][4] if names < count else 0
        self.sections = tuple(Section(self._string(strings + h[0]), h[1], h[4], h[5]) for h in headers)

    def _string(self, offset: int) -> str:
        end = self._data.find(b"\0", offset)
        return bytes(self._data[offset:end]).decode(errors="replace")

    def section(self, name: str) -> bytes | None:
        """The content of the first section called `name`, or None."""
        for section in self.sections:
            if section.name == name:
                return bytes(self._data[section.offset : section.offset + section.size])
        return None

    def notes(self) -> Iterator[tuple[str, int]]:
        """Owner and type of every note."""
        for section in self.sections:
            if section.type != _SHT_NOTE:
                continue
            at, end = section.offset, min(section.offset + section.size, len(self._data))
            while at + _NOTE.size <= end:
                owner, desc, kind = _NOTE.unpack_from(self._data, at)
                at += _NOTE.size
                yield bytes(self._data[at : at + owner]).rstrip(b"\0").decode(errors="replace"), kind
                at += -(-owner // 4) * 4 + -(-desc // 4) * 4

    def loaded_size(self) -> int:
        """Where in the file what is loaded to run it ends, in bytes; symbols for debuggers follow."""
        return max((s[2] + s[5] for s in self._program_headers()), default=len(self._data))

    def loader(self) -> str:
        """The program that is run to load this one; empty for one that is linked statically."""
        return next((self._string(s[2]) for s in self._program_headers() if s[0] == _PT_INTERP), "")

    def _program_headers(self) -> list[tuple[int, ...]]:
        table, size, count = self._segments
        return [_SEGMENT.unpack_from(self._data, table + i * size) for i in range(count)]

    def has_pvh_entry(self) -> bool:
        """Whether a machine monitor can start this kernel uncompressed (Linux >= 4.21, ``CONFIG_PVH``)."""
        return ("Xen", _XEN_ELFNOTE_PHYS32_ENTRY) in self.notes()


@contextmanager
def open_elf(path: Path) -> Iterator[Elf]:
    """The ELF file at `path`; ValueError when it is not one, OSError when it can't be read."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield Elf(data)
