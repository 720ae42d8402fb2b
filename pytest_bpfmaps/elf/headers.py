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
    """An ELF file in memory.

    Raises ValueError when `data` is not a whole 64-bit little-endian one, and from each method for what its
    numbers put outside of the file.
    """

    def __init__(self, data: mmap.mmap | bytes) -> None:
        if len(data) < _HEADER.size or data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF file")
        self._data = data
        fields = _HEADER.unpack_from(data)
        self.type, self.machine = fields[1], fields[2]
        self._segments = fields[5], fields[9], fields[10]
        table, (size, count, names) = fields[6], fields[11:14]
        headers = list(self._table("section table", table, size, count, _SECTION))
        strings = self._part("table of section names", *headers[names][4:6]) if names < count else b"\0"
        self.sections = tuple(Section(_string(strings, h[0]), h[1], h[4], h[5]) for h in headers)

    def _part(self, what: str, offset: int, size: int) -> bytes:
        if offset + size > len(self._data):
            raise ValueError(f"its {what} lies outside of the file")
        return bytes(self._data[offset : offset + size])

    def _table(
        self, what: str, offset: int, size: int, count: int, layout: struct.Struct
    ) -> Iterator[tuple[int, ...]]:
        """The entries of a table, which may have more in each than is known here."""
        if not count:
            return
        if size < layout.size:
            raise ValueError(f"its {what} has entries of {size} bytes")
        raw = self._part(what, offset, size * count)
        for at in range(0, len(raw), size):
            yield layout.unpack_from(raw, at)

    def section(self, name: str) -> bytes | None:
        """The content of the first section called `name`, or None."""
        for section in self.sections:
            if section.name == name:
                return self._part(f"section {name}", section.offset, section.size)
        return None

    def notes(self) -> Iterator[tuple[str, int]]:
        """Owner and type of every note."""
        for section in self.sections:
            if section.type != _SHT_NOTE:
                continue
            raw = self._part(f"section {section.name}", section.offset, section.size)
            at = 0
            while at + _NOTE.size <= len(raw):
                owner, desc, kind = _NOTE.unpack_from(raw, at)
                at += _NOTE.size
                yield raw[at : at + owner].rstrip(b"\0").decode(errors="replace"), kind
                at += -(-owner // 4) * 4 + -(-desc // 4) * 4

    def loaded_size(self) -> int:
        """Where in the file what is loaded to run it ends, in bytes; symbols for debuggers follow."""
        size = len(self._data)
        return min(max((s[2] + s[5] for s in self._program_headers()), default=size), size)

    def loader(self) -> str:
        """The program that is run to load this one; empty for one that is linked statically."""
        paths = (self._part("loader", s[2], s[5]) for s in self._program_headers() if s[0] == _PT_INTERP)
        return _string(next(paths, b""), 0)

    def _program_headers(self) -> list[tuple[int, ...]]:
        return list(self._table("segment table", *self._segments, _SEGMENT))

    def has_pvh_entry(self) -> bool:
        """Whether a machine monitor can start this kernel uncompressed (Linux >= 4.21, ``CONFIG_PVH``)."""
        return ("Xen", _XEN_ELFNOTE_PHYS32_ENTRY) in self.notes()


def _string(table: bytes, offset: int) -> str:
    """The text up to the next NUL; empty behind the table's end."""
    return table[offset:].split(b"\0", 1)[0].decode(errors="replace")


@contextmanager
def open_elf(path: Path) -> Iterator[Elf]:
    """The ELF file at `path`; ValueError when it is not one, OSError when it can't be read."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield Elf(data)
