"""Reads a symbol table of an ELF file. Only symbols that are needed become objects.

Reading a large library symbol by symbol with pyelftools takes seconds. Making an object of each symbol takes
an emulated machine one second. Source: elf(5), ``Elf64_Sym``.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pytest_bpfmaps.elf.name_search import Names, end_of_name

_FUNC, _IFUNC, _FILE = 2, 10, 4  # STT_*
_LOCAL = 0  # STB_LOCAL
_FEW = 8
_ORDERS = {"<": "little", ">": "big"}


@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """A function in a table: its index, its name as the table has it, its address and size."""

    number: int
    name: str
    address: int
    size: int
    is_ifunc: bool
    is_local: bool


class SymbolTable:
    """The functions that a file defines, from the section of that name."""

    def __init__(self, elf: Any, section: str) -> None:
        found = elf.get_section_by_name(section)
        self._raw, self.strings = b"", b""
        if found is not None and found["sh_type"] != "SHT_NOBITS":
            self._raw, self.strings = found.data(), elf.get_section(found["sh_link"]).data()
        self._order = "<" if elf.little_endian else ">"
        self._wide = elf.elfclass == 64
        self._layout = struct.Struct(f"{self._order}IBBHQQ" if self._wide else f"{self._order}IIIBBH")
        self._raw = self._raw[: len(self._raw) // self._layout.size * self._layout.size]

    def __iter__(self) -> Iterator[ElfSymbol]:
        return self.at(self._functions)

    def __bool__(self) -> bool:
        return bool(self._functions)

    def at(self, numbers: Sequence[int]) -> Iterator[ElfSymbol]:
        """Yields the functions among the symbols with these numbers."""
        for number in numbers:
            fields = self._layout.unpack_from(self._raw, number * self._layout.size)
            if self._wide:
                name_at, info, _, place, address, size = fields
            else:
                name_at, address, size, info, _, place = fields
            if place and address and info & 0xF in (_FUNC, _IFUNC):
                end = self.strings.find(b"\0", name_at)
                name = self.strings[name_at:end].decode(errors="replace")
                yield ElfSymbol(number, name, address, size, info & 0xF == _IFUNC, info >> 4 == _LOCAL)

    def named(self, name: str) -> list[ElfSymbol]:
        """Returns the functions of that name, with and without a version after it."""
        return list(self.at(self.numbers(name)))

    def numbers(self, name: str) -> list[int]:
        """Returns the numbers of all symbols of that name, even if another file defines them."""
        wanted, at, places = name.encode(), -1, set()
        while (at := self.strings.find(wanted, at + 1)) >= 0:
            if self.strings[at + len(wanted) : at + len(wanted) + 1] in (b"\0", b"@"):
                places.add(at)
        if len(places) > _FEW:  # many other names end in a short name
            return [i for i, place in enumerate(self._names_at) if place in places]
        return sorted(number for place in places for number in _indices(self._names_at, place))

    def names(self) -> Names:
        """Returns the names of the functions, in which similar names can be found."""
        return _FunctionNames(self)

    def source_of(self, symbol: ElfSymbol) -> str:
        """Returns the C file of a static function; empty if the symbols do not name it."""
        before = bisect_left(self._files, symbol.number) if symbol.is_local else 0
        if not before:
            return ""
        start = self._names_at[self._files[before - 1]]
        return self.strings[start : self.strings.find(b"\0", start)].decode(errors="replace")

    @cached_property
    def starts(self) -> list[int]:
        """The offsets in `strings` at which names begin, sorted."""
        return sorted(set(self._names_at))

    @cached_property
    def _files(self) -> list[int]:
        return [number for number, kind in enumerate(self._kinds) if kind & 0xF == _FILE]

    def before(self, address: int) -> tuple[int, list[int]]:
        """Returns the highest address of a function that is not above `address`, and the functions there.

        Returns (0, []) if there is none.
        """
        starts, numbers = self._by_address
        end = bisect_right(starts, address)
        if not end:
            return 0, []
        return starts[end - 1], numbers[bisect_left(starts, starts[end - 1]) : end]

    @cached_property
    def _by_address(self) -> tuple[list[int], list[int]]:
        """The functions' addresses, sorted, and their numbers in the same order."""
        values = self._column("Q" if self._wide else "I", 8 if self._wide else 4)
        numbers = sorted(self._functions, key=values.__getitem__)
        return [values[number] for number in numbers], numbers

    @cached_property
    def _functions(self) -> list[int]:
        places = self._column("H", 6 if self._wide else 14)
        defined = zip(self._kinds, places, strict=True)
        return [i for i, (kind, place) in enumerate(defined) if place and kind & 0xF in (_FUNC, _IFUNC)]

    @cached_property
    def _kinds(self) -> bytes:
        return self._raw[4 if self._wide else 12 :: self._layout.size]

    @cached_property
    def _names_at(self) -> array[int]:
        return self._column("I", 0)

    def _column(self, type: str, offset: int) -> array[int]:
        """Returns the field at an offset of all symbols."""
        whole = array(type, self._raw)
        if _ORDERS[self._order] != sys.byteorder:
            whole.byteswap()
        return whole[offset // whole.itemsize :: self._layout.size // whole.itemsize]


def _indices(numbers: array[int], wanted: int) -> Iterator[int]:
    """Yields each index of a number."""
    at = -1
    try:
        while True:
            at = numbers.index(wanted, at + 1)
            yield at
    except ValueError:
        return


class _FunctionNames(Names):
    def __init__(self, table: SymbolTable) -> None:
        super().__init__(b"\0" + table.strings, b"\0")
        self._table = table

    def __contains__(self, name: str) -> bool:
        return bool(self._table.named(name))

    def _with(self, piece: bytes) -> Iterator[str]:
        """Yields the names that contain a piece.

        A linker stores a name only once if another name ends in it.
        """
        text, starts = self._text, self._table.starts
        wanted, at = piece.removeprefix(self._before), -1
        while (at := text.find(wanted, at + 1)) >= 0:
            begin = at if wanted != piece else text.rfind(self._before, 0, at) + 1
            end = end_of_name(text, at)
            for start in starts[bisect_left(starts, begin - 1) : bisect_right(starts, at - 1)]:
                yield text[start + 1 : end].decode(errors="replace")
