"""Functions of programs and libraries, from their ELF symbol tables.

pyelftools finds the tables; reading them symbol by symbol with it would take seconds for a large library.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from .debug_files import DebugFiles
from .elf_file import ElfError, open_elf
from .kallsyms import preference

_FUNC, _IFUNC = 2, 10
_PF_X = 1


Function = tuple[tuple[str, ...], int]
"""All names, the usual one first, and the address."""


class ElfSymbols:
    """The functions of one file."""

    def __init__(self, path: str) -> None:
        with open_elf(path) as elf:
            self._files = DebugFiles.of(elf, path)
            self._loads = [
                (s["p_offset"], s["p_filesz"], s["p_vaddr"])
                for s in elf.iter_segments()
                if s["p_type"] == "PT_LOAD" and s["p_flags"] & _PF_X
            ]
            self._own = _Table(elf)  # read now: the file of another process may be gone later

    @property
    def build_id(self) -> str:
        """Its build id in hexadecimal, empty when it has none."""
        return self._files.build_id

    def find(self, offset: int) -> Function | None:
        """The function at an offset in the file, with its own offset."""
        for load_offset, size, vaddr in self._loads:
            if load_offset <= offset < load_offset + size:
                at = offset - load_offset + vaddr
                # what a stripped file exports is there; the rest, if anywhere, in its debug symbols
                found = self._own.find(at) or next((f for t in self._debug if (f := t.find(at))), None)
                return found and (found[0], found[1] - vaddr + load_offset)
        return None

    @cached_property
    def _debug(self) -> list[_Table]:
        """The symbols of files for debuggers."""
        return self._files.read(_Table)


class _Table:
    """Functions by address. Symbols are parsed when somebody asks for one."""

    def __init__(self, elf: Any) -> None:
        order = "<" if elf.little_endian else ">"
        self._wide = elf.elfclass == 64
        self._layout = struct.Struct(f"{order}IBBHQQ" if self._wide else f"{order}IIIBBH")
        sections = [elf.get_section_by_name(n) for n in (".symtab", ".dynsym")]
        self._raw = [
            (s.data(), elf.get_section(s["sh_link"]).data())
            for s in sections
            if s is not None and s["sh_type"] != "SHT_NOBITS"
        ]

    def find(self, address: int) -> Function | None:
        at = bisect_right(self._starts, address)
        if not at:
            return None
        start = self._starts[at - 1]
        # hand-written functions have size 0: they reach to the next one
        names = {name for size, name in self._at[start] if not size or address < start + size}
        return (tuple(sorted(names, key=preference)), start) if names else None

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(self._at)

    @cached_property
    def _at(self) -> dict[int, set[tuple[int, str]]]:
        found: dict[int, set[tuple[int, str]]] = {}
        for symbols, strings in self._raw:
            for value, size, name_at in self._functions(symbols):
                name = strings[name_at : strings.find(b"\0", name_at)].decode(errors="replace")
                found.setdefault(value, set()).add((size, name.partition("@")[0]))
        return found

    def _functions(self, raw: bytes) -> Iterator[tuple[int, int, int]]:
        """(address, size, place of the name) of each function that is defined in the file."""
        whole = raw[: len(raw) // self._layout.size * self._layout.size]
        for fields in self._layout.iter_unpack(whole):
            if self._wide:
                name_at, info, _, place, value, size = fields
            else:
                name_at, value, size, info, _, place = fields
            if place and value and info & 0xF in (_FUNC, _IFUNC):
                yield value, size, name_at


def elf_symbols(path: str) -> ElfSymbols | None:
    """The functions of the file at `path`; None when it can't be read or is no ELF file."""
    try:
        state = Path(path).stat()
        return _cached(path, state.st_dev, state.st_ino, state.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=128)
def _cached(path: str, *_state: int) -> ElfSymbols | None:
    try:
        return ElfSymbols(path)
    except ElfError:
        return None
