"""Reads and changes sections and symbols of 64-bit ELF objects with this machine's byte order.

Changed content is written at the end of the file. Nothing else moves, so no offset has to be corrected.
Source: elf(5).
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, replace

_HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("=IIQQQQIIQQ")
_SYMBOL = struct.Struct("=IBBHQQ")
RELOCATION = struct.Struct("=QQ")
SHT_PROGBITS, SHT_SYMTAB, SHT_REL = 1, 2, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STT_OBJECT, STT_FUNC, STT_SECTION = 1, 2, 3
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
_SHT_NOBITS = 8
_MOST = 1 << 24  # bytes of a section without content in the file, such as .bss
_DATA = {"little": 1, "big": 2}[sys.byteorder]


@dataclass(slots=True)
class Section:
    """An ELF section; `content` is None if the content in the file is unchanged."""

    index: int
    name: str
    fields: tuple[int, ...]  # name, type, flags, addr, offset, size, link, info, addralign, entsize
    content: bytes | None = None

    @property
    def type(self) -> int:
        """``SHT_*``."""
        return self.fields[1]

    @property
    def flags(self) -> int:
        """``SHF_*``."""
        return self.fields[2]

    @property
    def link(self) -> int:
        """The index of the section that it belongs to; for a relocation section, the symbol table."""
        return self.fields[6]

    @property
    def info(self) -> int:
        """For a relocation section: the index of the section that it changes."""
        return self.fields[7]


@dataclass(frozen=True, slots=True)
class Symbol:
    """An ELF symbol; `value` is its offset in its section, in bytes."""

    name: str
    name_at: int
    info: int
    other: int
    section: int
    value: int
    size: int

    @property
    def type(self) -> int:
        """``STT_*``."""
        return self.info & 0xF

    @property
    def binding(self) -> int:
        """``STB_*``."""
        return self.info >> 4


class Elf:
    """An object file in memory. Raises ValueError for an incomplete object, or another byte order."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02" + bytes([_DATA]) or len(data) < _HEADER.size:
            raise ValueError("not a 64-bit ELF object of this machine's byte order")
        self._data = data
        header = _HEADER.unpack_from(data)
        start, each, count, self._names_index = header[6], header[11], header[12], header[13]
        if each != _SECTION.size or start + each * count > len(data) or self._names_index >= count:
            raise ValueError("the section headers are cut off")
        raw = list(_SECTION.iter_unpack(data[start : start + each * count]))
        names = self._at(raw[self._names_index])
        self.sections = [Section(i, _string(names, f[0]), f) for i, f in enumerate(raw)]

    def section(self, name: str) -> Section | None:
        """Returns the first section of that name; None if there is none."""
        return next((s for s in self.sections if s.name == name), None)

    def content(self, section: Section) -> bytes:
        """Returns the bytes of a section, with changes."""
        return self._at(section.fields) if section.content is None else section.content

    def symbol_table(self) -> Section | None:
        """Returns the section with the symbols; None if there is none."""
        return next((s for s in self.sections if s.type == SHT_SYMTAB), None)

    def symbols(self) -> list[Symbol]:
        """Returns all symbols, in the table's order."""
        table = self.symbol_table()
        if table is None:
            return []
        if table.link >= len(self.sections):
            raise ValueError("the symbols have no names")
        names = self.content(self.sections[table.link])
        raw = self.content(table)
        whole = raw[: len(raw) // _SYMBOL.size * _SYMBOL.size]
        return [Symbol(_string(names, s[0]), *s) for s in _SYMBOL.iter_unpack(whole)]

    def set_symbols(self, symbols: list[Symbol]) -> None:
        """Replaces the symbol table's symbols. Raises ValueError for an object without such a table."""
        table = self.symbol_table()
        if table is None:
            raise ValueError("the object has no symbol table")
        table.content = b"".join(
            _SYMBOL.pack(s.name_at, s.info, s.other, s.section, s.value, s.size) for s in symbols
        )

    def add_section(self, name: str, type: int, content: bytes, **fields: int) -> Section:
        """Adds a section, and returns it; `fields` are flags, link, info, align, entsize."""
        given = [fields.get(n, 0) for n in ("flags", "link", "info", "align", "entsize")]
        flags, link, info, align, size = given
        raw = (0, type, flags, 0, 0, 0, link, info, align or 1, size)
        made = Section(len(self.sections), name, raw, content)
        self.sections.append(made)
        return made

    def to_bytes(self) -> bytes:
        """Returns the object with all changes."""
        names = self.sections[self._names_index]
        old_names = self._at(names.fields)
        added = bytearray(self.content(names))
        for section in self.sections:
            if section.index == 0 or _string(old_names, section.fields[0]) == section.name != "":
                continue
            section.fields = (len(added), *section.fields[1:])
            added += section.name.encode() + b"\0"
        names.content = bytes(added)
        out = bytearray(self._data)
        table = b"".join(_SECTION.pack(*self._placed(section, out)) for section in self.sections)
        out += bytes(-len(out) % 8)
        header = list(_HEADER.unpack_from(out))
        header[6], header[12] = len(out), len(self.sections)
        _HEADER.pack_into(out, 0, *header)
        return bytes(out) + table

    def _placed(self, section: Section, out: bytearray) -> tuple[int, ...]:
        """Returns the header of a section; appends its content to `out` if that has changed."""
        if section.content is None:
            return section.fields
        out += bytes(-len(out) % 8)
        at = len(out)
        out += section.content
        return (*section.fields[:4], at, len(section.content), *section.fields[6:])

    def _at(self, fields: tuple[int, ...]) -> bytes:
        type, offset, size = fields[1], fields[4], fields[5]
        if type == _SHT_NOBITS and size <= _MOST:
            return bytes(size)
        if type == _SHT_NOBITS or offset + size > len(self._data):
            raise ValueError("a section is cut off")
        return self._data[offset : offset + size]


def moved(symbol: Symbol, section: int, value: int, size: int) -> Symbol:
    """Returns the symbol with another section, value and size."""
    return replace(symbol, section=section, value=value, size=size)


def _string(table: bytes, at: int) -> str:
    end = table.find(b"\0", at)
    return table[at : end if end >= 0 else None].decode(errors="replace")
