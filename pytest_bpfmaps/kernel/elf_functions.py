"""Functions of a program or library by their names, as the dynamic linker and a debugger see them.

A name can have several versions, of which one is the default; a function can be an IFUNC, of which a resolver
chooses the code when the program starts. Source: elf(5), "Symbol Versioning" of the Linux Standard Base, and
the `ifunc` attribute in GCC's manual.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Any

from .debug_files import DebugFiles
from .elf_file import ElfError, open_elf

_FUNC, _IFUNC, _FILE = 2, 10, 4  # STT_*
_LOCAL = 0  # STB_LOCAL
_HIDDEN = 0x8000  # of an entry of .gnu.version: not the default
_COLD = re.compile(r"\.cold(\.\d+)?$")  # a part of a function that is entered by a jump


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a file.

    `version` is empty for one without; `is_default`: it is what a program gets that is linked today.
    `address` is the symbol's value, of an IFUNC that of its resolver; `source` is the file of a static
    function, where the symbols tell it.
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
    """A name that several functions have, none of them before the others: `functions`."""

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
            self._exported = list(_dynamic(elf))
            self._all = list(_static(elf, {(f.name, f.address) for f in self._exported}))
            self._files = DebugFiles.of(elf, path)

    def find(self, name: str) -> Function | None:
        """The function of a name, ``realpath`` or ``realpath@GLIBC_2.3``.

        What the file exports comes before its other symbols, and these before symbols for debuggers in a
        file of their own. Without a version it is the default one. Raises `Ambiguous`.
        """
        for table in self._tables():
            found = _choose(table, name)
            if len({f.address for f in found}) > 1:
                raise Ambiguous(found)
            if found:
                return found[0]
        return None

    def matching(self, pattern: str) -> list[Function]:
        """The functions whose name fits a pattern with ``*`` and ``?``, one for each address, by name.

        A pattern without ``@`` means the default versions.
        """
        fits = re.compile(translate(pattern)).match
        found: dict[int, Function] = {}
        for function in sorted([*self._exported, *self._all], key=str):
            text = str(function) if "@" in pattern else function.name
            wanted = "@" in pattern or function.is_default or not self._has_default(function.name)
            entered = ".cold" in pattern or not _COLD.search(function.name)
            if wanted and entered and fits(text):
                found.setdefault(function.address, function)
        return list(found.values())

    def names(self) -> set[str]:
        """All names that `find` knows, without versions."""
        return {f.name for table in self._tables() for f in table}

    def versions(self, name: str) -> list[str]:
        """``["realpath@@GLIBC_2.3", "realpath@GLIBC_2.2.5"]``: what there is of a name."""
        base = name.partition("@")[0]
        found = {str(f) for table in (self._exported, self._all) for f in table if f.name == base}
        return sorted(found, key=lambda f: ("@@" not in f, f))

    def offset(self, address: int) -> int:
        """Where in the file the code at an address is. Raises `ElfError`."""
        for vaddr, offset, size in self._loads:
            if vaddr <= address < vaddr + size:
                return int(address - vaddr + offset)
        raise ElfError(f"{self._path} has no code at address {address:#x}")

    def address(self, offset: int) -> int | None:
        """The address of what is at a place in the file; None for what is not loaded."""
        return next((v + offset - o for v, o, size in self._loads if o <= offset < o + size), None)

    def _tables(self) -> Iterator[list[Function]]:
        yield self._exported
        yield self._all
        yield self._debug

    def _has_default(self, name: str) -> bool:
        return name in self._defaults

    @cached_property
    def _defaults(self) -> frozenset[str]:
        return frozenset(f.name for f in (*self._exported, *self._all) if f.is_default)

    @cached_property
    def _debug(self) -> list[Function]:
        """The symbols of files for debuggers."""
        tables = self._files.read(self._moved)
        return [function for table in tables for function in table]

    def _moved(self, elf: Any) -> list[Function]:
        """Prelink gives a library other addresses than its debug file has."""
        theirs = _loads(elf)
        by = self._loads[0][0] - theirs[0][0] if self._loads and theirs else 0
        return [replace(f, address=f.address + by) for f in _static(elf)]


@lru_cache(maxsize=16)
def _cached(path: str, *_state: int) -> ElfFunctions:
    return ElfFunctions(path)


def elf_functions(path: str | os.PathLike[str]) -> ElfFunctions:
    """The functions of a file, kept while it stays as it is. Raises `ElfError`, `OSError`."""
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
    """Address, place in the file and size of each part that is loaded; what runs comes first."""
    parts = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
    parts.sort(key=lambda s: not s["p_flags"] & 1)
    return [(s["p_vaddr"], s["p_offset"], s["p_memsz"]) for s in parts]


def symbols(elf: Any, section: Any) -> Iterator[tuple[int, str, int, int, int, int]]:
    """Number, name, type, binding, section and value of each symbol of a table.

    With pyelftools, symbol by symbol, it would take seconds for a large library.
    """
    order = "<" if elf.little_endian else ">"
    wide = elf.elfclass == 64
    layout = struct.Struct(f"{order}IBBHQQ" if wide else f"{order}IIIBBH")
    raw, strings = section.data(), elf.get_section(section["sh_link"]).data()
    for number, fields in enumerate(layout.iter_unpack(raw[: len(raw) // layout.size * layout.size])):
        if wide:
            name_at, info, _, place, value, _ = fields
        else:
            name_at, value, _, info, _, place = fields
        name = strings[name_at : strings.find(b"\0", name_at)].decode(errors="replace")
        yield number, name, info & 0xF, info >> 4, place, value


def _dynamic(elf: Any) -> Iterator[Function]:
    """What the file exports, with versions."""
    section = elf.get_section_by_name(".dynsym")
    if section is None or section["sh_type"] == "SHT_NOBITS":
        return
    versions, names = symbol_versions(elf)
    for number, name, type, _, place, value in symbols(elf, section):
        if type in (_FUNC, _IFUNC) and place and value:
            mark = versions[number] if number < len(versions) else 1
            version = names.get(mark & ~_HIDDEN, "")
            yield Function(name, value, type == _IFUNC, version, not (version and mark & _HIDDEN))


def symbol_versions(elf: Any) -> tuple[list[int], dict[int, str]]:
    """Of each dynamic symbol the number of its version, with `_HIDDEN`; and the versions' names."""
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


def _static(elf: Any, known: Iterable[tuple[str, int]] = ()) -> Iterator[Function]:
    """The symbols that ``strip`` takes away; those that are `known` have more said of them elsewhere."""
    section = elf.get_section_by_name(".symtab")
    if section is None or section["sh_type"] == "SHT_NOBITS":
        return
    seen, source = set(known), ""
    for _, text, type, binding, place, value in symbols(elf, section):
        if type == _FILE:
            source = text
        elif type in (_FUNC, _IFUNC) and place and value:
            name, at, version = text.partition("@")
            if (name, value) not in seen:
                is_default = not at or version.startswith("@")
                from_file = source if binding == _LOCAL else ""
                yield Function(name, value, type == _IFUNC, version.lstrip("@"), is_default, from_file)
