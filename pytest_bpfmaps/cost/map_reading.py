"""Reads what the functions of an object file do with its maps: which, by which keys, and in which line."""

from __future__ import annotations

import struct
import sys
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.btf.line_info import SourceLine, source_lines
from pytest_bpfmaps.cost.register_values import LOOKUP, PUSH, UPDATE, Access, Function, Reading, Value
from pytest_bpfmaps.elf.editor import (
    RELOCATION,
    SHF_EXECINSTR,
    SHT_REL,
    STT_FUNC,
    STT_OBJECT,
    STT_SECTION,
    Elf,
    Section,
    Symbol,
)
from pytest_bpfmaps.verifier.control_flow import read_instructions

_MAPS = (".maps", "maps")
_DATA = (".bss", ".data")
_WITH_PACKETS = (
    *("xdp", "tc", "tcx", "classifier", "action", "cgroup_skb", "socket", "lwt", "sk_skb", "netkit"),
)
_MOST_INSTRUCTIONS = 20_000  # of a function; an object that has a longer one is not read


@dataclass(frozen=True, slots=True)
class FunctionReading:
    """What is known of a function: its name, its section, and what it does.

    `unread` holds the updates whose result the function never reads, and after which it never looks the same
    map up.
    """

    name: str
    section: str
    reading: Reading
    unread: tuple[Access, ...]
    is_callback: bool
    lines: tuple[tuple[int, SourceLine], ...]

    def line_of(self, access: Access) -> SourceLine | None:
        """Returns the C line of an access; None without debug information."""
        at = bisect_right(self.lines, access.index, key=lambda each: each[0]) - 1
        return self.lines[at][1] if at >= 0 else None


def read_functions(path: Path, key_sizes: Mapping[str, int]) -> list[FunctionReading]:
    """Returns what each function of an object does. `key_sizes` are the sizes of keys, in bytes, by map.

    A damaged object has no functions, and neither has one with a function that is too long.
    """
    try:
        return _Object(path, key_sizes).functions()
    except (OSError, ValueError, LookupError, struct.error):
        return []


def variable_at(path: Path, section: str, offset: int) -> str:
    """Returns the name of the variable at a place of a section; empty if it is not known."""
    elf = Elf(path.read_bytes())
    for symbol in elf.symbols():
        here = symbol.type == STT_OBJECT and 0 < symbol.section < len(elf.sections)
        inside = symbol.value <= offset < symbol.value + max(symbol.size, 1)
        if here and inside and elf.sections[symbol.section].name == section:
            return symbol.name
    return ""


def can_fail(access: Access) -> bool:
    """Returns whether an access is an update that fails when the map is full.

    A push with ``BPF_EXIST`` does not fail: it drops the oldest value.
    """
    return access.what == UPDATE or (access.what == PUSH and access.key == ("const", 0))


class _Object:
    def __init__(self, path: Path, key_sizes: Mapping[str, int]) -> None:
        self._elf = Elf(path.read_bytes())
        self._symbols = self._elf.symbols()
        self._key_sizes = key_sizes
        self._callbacks: set[tuple[int, int]] = set()
        self._lines: dict[str, list[SourceLine]] = {}
        for line in source_lines(path):
            self._lines.setdefault(line.section, []).append(line)

    def functions(self) -> list[FunctionReading]:
        found = []
        sections = [section for section in self._elf.sections if section.flags & SHF_EXECINSTR]
        codes = {section.index: self._elf.content(section) for section in sections}
        all_refers = {section.index: self._refers(section, codes[section.index]) for section in sections}
        for section in sections:
            code, refers = codes[section.index], all_refers[section.index]
            for symbol in self._symbols:
                if symbol.type == STT_FUNC and symbol.section == section.index and symbol.size:
                    found += self._read(section, symbol, code, refers)
        return found

    def _read(
        self, section: Section, symbol: Symbol, code: bytes, refers: Mapping[int, Value]
    ) -> list[FunctionReading]:
        part = code[symbol.value : symbol.value + symbol.size]
        instructions = read_instructions(part)
        if len(instructions) > _MOST_INSTRUCTIONS:
            raise ValueError("the function is too long")
        shift = 0 if sys.byteorder == "little" else 4
        destinations = [part[8 * i + 1] >> shift & 0xF for i in range(len(instructions))]
        if sys.byteorder == "big":
            return []
        mine = {
            i: value for at, value in refers.items() if 0 <= (i := (at - symbol.value) // 8) < len(part) // 8
        }
        function = Function(
            instructions,
            destinations,
            mine,
            self._key_sizes,
            has_packets=section.name.split("/")[0].split(".")[0] in _WITH_PACKETS,
            is_program=section.name != ".text",
        )
        reading = function.read()
        unread = []
        for access in reading.accesses.values():
            if can_fail(access) and not function.reads_result(access.index):
                after = function.reachable(access.index)
                again = (a for a in reading.accesses.values() if a.what == LOOKUP and a.place == access.place)
                if not any(other.index in after for other in again):
                    unread.append(access)
        end = symbol.value + symbol.size
        lines = tuple(
            ((line.offset - symbol.value) // 8, line)
            for line in sorted(self._lines.get(section.name, []), key=lambda each: each.offset)
            if symbol.value <= line.offset < end
        )
        is_callback = (section.index, symbol.value) in self._callbacks
        return [FunctionReading(symbol.name, section.name, reading, tuple(unread), is_callback, lines)]

    def _refers(self, section: Section, code: bytes) -> dict[int, Value]:
        """Returns what each wide instruction with a relocation loads, by its offset."""
        found: dict[int, Value] = {}
        for table in self._elf.sections:
            if table.type != SHT_REL or table.info != section.index:
                continue
            for at, info in RELOCATION.iter_unpack(self._elf.content(table)):
                if at + 8 <= len(code) and code[at] == 0x18:
                    found[at] = self._referred(
                        self._symbols[info >> 32], struct.unpack_from("=i", code, at + 4)[0]
                    )
        return found

    def _referred(self, symbol: Symbol, addend: int) -> Value:
        if not 0 < symbol.section < len(self._elf.sections):
            return None
        name = self._elf.sections[symbol.section].name
        offset = addend if symbol.type == STT_SECTION else symbol.value + addend
        if self._elf.sections[symbol.section].flags & SHF_EXECINSTR:
            self._callbacks.add((symbol.section, offset))
            return None
        if name in _MAPS:
            if symbol.type != STT_SECTION:
                return ("map", symbol.name)
            named = (s for s in self._symbols if s.section == symbol.section and s.type == STT_OBJECT)
            return next((("map", s.name) for s in named if s.value == offset), None)
        if name.startswith(_DATA):
            return ("global", name, offset)
        return None
