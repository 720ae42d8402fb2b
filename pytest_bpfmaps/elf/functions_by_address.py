"""Finds functions of programs and libraries by their addresses, in their ELF symbol tables."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pytest_bpfmaps.elf.debug_files import DebugFiles
from pytest_bpfmaps.elf.reader import ElfError, loaded_segments, open_elf
from pytest_bpfmaps.elf.symbol_table import SymbolTable

_PF_X = 1


Function = tuple[tuple[str, ...], int]
"""(all names, the usual one first; the address)."""


class ElfSymbols:
    """The functions of one file."""

    def __init__(self, path: str) -> None:
        with open_elf(path) as elf:
            self._files = DebugFiles.of(elf, path)
            self._loads = [
                (s["p_offset"], s["p_filesz"], s["p_vaddr"])
                for s in loaded_segments(elf)
                if s["p_flags"] & _PF_X
            ]
            self._own = _Tables(elf)  # read now, because a file of another process may be removed later

    @property
    def build_id(self) -> str:
        """The build id in hexadecimal; empty if the file has none."""
        return self._files.build_id

    def find(self, offset: int) -> Function | None:
        """Returns the function at an offset in the file, with its own offset; None if there is none."""
        for load_offset, size, vaddr in self._loads:
            if load_offset <= offset < load_offset + size:
                at = offset - load_offset + vaddr
                # A stripped file has only the functions that it exports. Debug files may have the others.
                found = self._own.find(at) or next((f for t in self._debug if (f := t.find(at))), None)
                return found and (found[0], found[1] - vaddr + load_offset)
        return None

    @cached_property
    def _debug(self) -> list[_Tables]:
        """The symbols in separate debug files."""
        return self._files.read(_Tables)


class _Tables:
    """The functions of a file by address: those of its symbols, and those that it exports."""

    def __init__(self, elf: Any) -> None:
        self._tables = [SymbolTable(elf, section) for section in (".symtab", ".dynsym")]

    def find(self, address: int) -> Function | None:
        """Returns the function that the address is in; None if there is none."""
        before = [(table, *table.before(address)) for table in self._tables]
        start = max(start for _, start, _ in before)
        # A function in assembler may have size 0. Then it counts up to the next function.
        names = {
            symbol.name.partition("@")[0]
            for table, at, numbers in before
            if at == start
            for symbol in table.at(numbers)
            if not symbol.size or address < start + symbol.size
        }
        return (tuple(sorted(names, key=preference)), start) if names else None


def elf_symbols(path: str) -> ElfSymbols | None:
    """Returns the functions of the file at `path`; None if it can't be read or is not an ELF file."""
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


def preference(name: str) -> tuple[int, int, str]:
    """Returns a sort key that puts a function's usual name first: ``open`` before ``__open64``."""
    return len(name) - len(name.lstrip("_")), len(name), name
