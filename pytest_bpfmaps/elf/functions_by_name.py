"""Finds functions of a program or library by their names, as the dynamic linker and a debugger do.

A name can have several versions, one of which is the default. A function can be an IFUNC: a resolver chooses
its code when the program starts. Source: elf(5), "Symbol Versioning" of the Linux Standard Base, and the
`ifunc` attribute in GCC's manual.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Any

from pytest_bpfmaps.elf.debug_files import DebugFiles
from pytest_bpfmaps.elf.name_search import Names, tell_closest
from pytest_bpfmaps.elf.reader import ElfError, loaded_segments, open_elf
from pytest_bpfmaps.elf.symbol_table import ElfSymbol, SymbolTable

_HIDDEN = 0x8000  # bit of an entry of .gnu.version: it is not the default version
_COLD = re.compile(r"\.cold(\.\d+)?$")  # a part of a function, entered by a jump and not by a call


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a file.

    `version` is empty for a function without versions. `is_default` says whether a program that is linked
    today gets this version. `address` is the symbol's value; for an IFUNC it is the address of the resolver.
    `source` is the C file of a static function, if the symbols name it.
    """

    name: str
    address: int
    is_ifunc: bool = False
    version: str = ""
    is_default: bool = True
    source: str = ""

    def __str__(self) -> str:
        at = "" if not self.version else f"@@{self.version}" if self.is_default else f"@{self.version}"
        return f"{self.name}{at}"


class Ambiguous(LookupError):
    """A name that several functions have, and none of them takes precedence: `functions`."""

    def __init__(self, functions: list[Function]) -> None:
        super().__init__(", ".join(map(str, functions)))
        self.functions = functions


class ElfFunctions:
    """The functions of the file at `path`. Raises `ElfError`, `OSError`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        with open_elf(path) as elf:
            self.is_program = elf["e_type"] in ("ET_EXEC", "ET_DYN")
            self._loads = _loads(elf)
            self._own = [_Exported(elf), _Static(elf)]
            self._files = DebugFiles.of(elf, path)

    def find(self, name: str) -> Function | None:
        """Returns the function of a name, ``realpath`` or ``realpath@GLIBC_2.3``; None if there is none.

        Exported functions take precedence over the file's other symbols, and these over symbols in separate
        debug files. Without a version, the name means the default version. Raises `Ambiguous`.
        """
        for table in self._tables():
            found = _choose(table.named(name.partition("@")[0]), name)
            if len({f.address for f in found}) > 1:
                raise Ambiguous(found)
            if found:
                return found[0]
        return None

    def matching(self, pattern: str) -> list[Function]:
        """Returns the functions that fit a pattern with ``*`` and ``?``, one for each address, by name.

        A pattern without ``@`` means the default versions.
        """
        fits = re.compile(translate(pattern)).match
        functions = _each_once(f for table in self._own for f in table)
        defaults = {f.name for f in functions if f.is_default}
        found: dict[int, Function] = {}
        for function in sorted(functions, key=str):
            text = str(function) if "@" in pattern else function.name
            wanted = "@" in pattern or function.is_default or function.name not in defaults
            entered = ".cold" in pattern or not _COLD.search(function.name)
            if wanted and entered and fits(text):
                found.setdefault(function.address, function)
        return list(found.values())

    def names(self) -> set[str]:
        """Returns all names that `find` knows, without versions."""
        return {f.name for table in self._tables() for f in table}

    def has_names(self) -> bool:
        """Returns whether the file has symbols of functions at all."""
        return any(self._tables())

    def starting(self, start: str) -> list[str]:
        """Returns the names that begin with `start`."""
        return sorted(
            {n for table in self._tables() for n in table.names().starting(start) if table.named(n)}
        )

    def having(self, part: str) -> list[str]:
        """Returns the names that contain `part`."""
        return sorted({n for table in self._tables() for n in table.names().having(part) if table.named(n)})

    def closest(self, name: str) -> str:
        """Returns a sentence with the closest names, for an error's `fix`."""
        near = {n for table in self._tables() for n in table.names().near(name)}
        return tell_closest(name, near, f"nm -D {self._path}")

    def versions(self, name: str) -> list[str]:
        """Returns all versions of a name: ``["realpath@@GLIBC_2.3", "realpath@GLIBC_2.2.5"]``."""
        base = name.partition("@")[0]
        found = {str(f) for f in _each_once(f for table in self._own for f in table.named(base))}
        return sorted(found, key=lambda f: ("@@" not in f, f))

    def offset(self, address: int) -> int:
        """Returns the offset in the file of the code at an address. Raises `ElfError`."""
        for vaddr, offset, size in self._loads:
            if vaddr <= address < vaddr + size:
                return int(address - vaddr + offset)
        raise ElfError(f"{self._path} has no code at address {address:#x}")

    def address(self, offset: int) -> int | None:
        """Returns the address of an offset in the file; None if that part is not loaded."""
        return next((v + offset - o for v, o, size in self._loads if o <= offset < o + size), None)

    def _tables(self) -> Iterator[_Table]:
        yield from self._own
        yield from self._debug

    @cached_property
    def _debug(self) -> list[_Table]:
        """The symbols in separate debug files."""
        return self._files.read(self._moved)

    def _moved(self, elf: Any) -> _Table:
        """Returns the symbols of a debug file, at the library's addresses, which prelink(8) may change."""
        theirs = _loads(elf)
        return _Static(elf, self._loads[0][0] - theirs[0][0] if self._loads and theirs else 0)


class _Table:
    """The functions of one symbol table."""

    def __init__(self, elf: Any, section: str) -> None:
        self._symbols = SymbolTable(elf, section)

    def __iter__(self) -> Iterator[Function]:
        return map(self._function, self._symbols)

    def __bool__(self) -> bool:
        return bool(self._symbols)

    def named(self, base: str) -> list[Function]:
        """Returns the functions of a name, of all versions."""
        return list(map(self._function, self._symbols.named(base)))

    def names(self) -> Names:
        """Returns the names of the functions, without versions."""
        return self._symbols.names()

    def _function(self, symbol: ElfSymbol) -> Function:
        raise NotImplementedError


class _Exported(_Table):
    """The functions that the file exports, with versions."""

    def __init__(self, elf: Any) -> None:
        super().__init__(elf, ".dynsym")
        self._versions, self._names = symbol_versions(elf)

    def _function(self, symbol: ElfSymbol) -> Function:
        mark = self._versions[symbol.number] if symbol.number < len(self._versions) else 1
        version = self._names.get(mark & ~_HIDDEN, "")
        is_default = not (version and mark & _HIDDEN)
        return Function(symbol.name, symbol.address, symbol.is_ifunc, version, is_default)


class _Static(_Table):
    """The symbols that ``strip`` removes; `by` is added to their addresses."""

    def __init__(self, elf: Any, by: int = 0) -> None:
        super().__init__(elf, ".symtab")
        self._by = by

    def _function(self, symbol: ElfSymbol) -> Function:
        name, at, version = symbol.name.partition("@")
        is_default = not at or version.startswith("@")
        source = self._symbols.source_of(symbol)
        version = version.lstrip("@")
        return Function(name, symbol.address + self._by, symbol.is_ifunc, version, is_default, source)


@lru_cache(maxsize=16)
def _cached(path: str, *_state: int) -> ElfFunctions:
    return ElfFunctions(path)


def elf_functions(path: str | os.PathLike[str]) -> ElfFunctions:
    """Returns the functions of a file; they are kept while it is unchanged. Raises `ElfError`, `OSError`."""
    state = os.stat(path)
    return _cached(os.fspath(path), state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)


def _choose(table: list[Function], name: str) -> list[Function]:
    base, at, version = name.partition("@")
    found = [f for f in table if f.name == base]
    if at:
        wants_default, version = version.startswith("@"), version.lstrip("@")
        return [f for f in found if f.version == version and (f.is_default or not wants_default)]
    return [f for f in found if f.is_default] or found


def _loads(elf: Any) -> list[tuple[int, int, int]]:
    """Returns (address, offset in the file, size) of each loaded part; code comes first."""
    parts = loaded_segments(elf)
    parts.sort(key=lambda s: not s["p_flags"] & 1)
    return [(s["p_vaddr"], s["p_offset"], s["p_memsz"]) for s in parts]


def symbol_versions(elf: Any) -> tuple[list[int], dict[int, str]]:
    """Returns the number of the version of each dynamic symbol, with `_HIDDEN`, and the versions' names."""
    marks = elf.get_section_by_name(".gnu.version")
    if marks is None:
        return [], {}
    data = marks.data()
    numbers = list(struct.unpack(f"{'<' if elf.little_endian else '>'}{len(data) // 2}H", data))
    names = {}
    if (defined := elf.get_section_by_name(".gnu.version_d")) is not None:
        for version, auxiliary in defined.iter_versions():
            if not version["vd_flags"] & 1:  # VER_FLG_BASE: the file's own name
                names[version["vd_ndx"]] = next(iter(auxiliary)).name
    if (needed := elf.get_section_by_name(".gnu.version_r")) is not None:
        for _, auxiliary in needed.iter_versions():
            names.update((each["vna_other"] & ~_HIDDEN, each.name) for each in auxiliary)
    return numbers, names


def _each_once(functions: Iterable[Function]) -> list[Function]:
    """Returns each function once, from the first table that has it: that table has the versions."""
    found: dict[tuple[str, int], Function] = {}
    for function in functions:
        found.setdefault((function.name, function.address), function)
    return list(found.values())
