"""Finds the C line and the function of each instruction of a program that libbpf has put together.

libbpf appends the functions that a program calls, in the order in which it meets the calls. This module
follows the same calls in the object file. So it knows where in the file each instruction came from.
Source: ``bpf_object__reloc_code`` in libbpf.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_bpfmaps.btf.line_info import SourceLine, source_lines
from pytest_bpfmaps.elf.editor import RELOCATION, SHT_REL, STT_FUNC, Elf, Symbol
from pytest_bpfmaps.verifier.control_flow import Instruction


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a program. `first` is its first instruction's number, `offset` its place in `section`."""

    name: str
    first: int
    section: str
    offset: int


class Places:
    """Where the instructions of the program `name` of the object at `path` came from.

    Functions that can't be found in the file are left out, and so are all lines of an object without debug
    information.
    """

    def __init__(self, path: Path, name: str, instructions: Sequence[Instruction]) -> None:
        self._lines: dict[str, list[SourceLine]] = {}
        for line in source_lines(path):
            self._lines.setdefault(line.section, []).append(line)
        for lines in self._lines.values():
            lines.sort(key=lambda each: each.offset)
        try:
            self.functions = _functions(Elf(path.read_bytes()), name, instructions)
        except (OSError, ValueError, LookupError, struct.error):
            self.functions = []
        self._firsts = [function.first for function in self.functions]

    def function_of(self, number: int) -> Function | None:
        """Returns the function that has the instruction."""
        at = bisect_right(self._firsts, number) - 1
        return self.functions[at] if at >= 0 else None

    def line_of(self, number: int) -> SourceLine | None:
        """Returns the C line of an instruction."""
        function = self.function_of(number)
        if function is None:
            return None
        lines = self._lines.get(function.section, [])
        offset = function.offset + 8 * (number - function.first)
        at = bisect_right(lines, offset, key=lambda each: each.offset) - 1
        # a record of another function in front of it says nothing about it
        return lines[at] if at >= 0 and lines[at].offset >= function.offset else None


def _functions(elf: Elf, name: str, instructions: Sequence[Instruction]) -> list[Function]:
    symbols = elf.symbols()
    named = next(s for s in symbols if s.type == STT_FUNC and s.name == name)
    relocations = _relocations(elf, symbols)
    starts = _starts(instructions)
    found: dict[int, Function] = {}
    waiting = [Function(name, 0, elf.sections[named.section].name, named.value)]
    while waiting:
        function = waiting.pop()
        found[function.first] = function
        end = next((start for start in starts if start > function.first), len(instructions))
        for index in range(function.first, end):
            one = instructions[index]
            if not (one.calls_function or one.takes_address):
                continue
            first = index + 1 + one.number
            if first in found:
                continue
            offset = function.offset + 8 * (index - function.first)
            place = _target(elf, relocations, function.section, offset, one.takes_address)
            if place is None:
                continue
            section, at = place
            called = next(
                (
                    s
                    for s in symbols
                    if s.type == STT_FUNC and s.value == at and elf.sections[s.section].name == section
                ),
                None,
            )
            waiting.append(Function(called.name if called else "", first, section, at))
    return [found[first] for first in sorted(found)]


def _starts(instructions: Sequence[Instruction]) -> list[int]:
    calls = (
        i + 1 + one.number for i, one in enumerate(instructions) if one.calls_function or one.takes_address
    )
    return sorted({0, *calls})


def _relocations(elf: Elf, symbols: list[Symbol]) -> dict[str, dict[int, Symbol]]:
    """Returns the symbol that an instruction refers to, by section and offset."""
    found: dict[str, dict[int, Symbol]] = {}
    for table in elf.sections:
        if table.type == SHT_REL:
            of_section = found.setdefault(elf.sections[table.info].name, {})
            for at, info in RELOCATION.iter_unpack(elf.content(table)):
                of_section[at] = symbols[info >> 32]
    return found


def _target(
    elf: Elf, relocations: Mapping[str, Mapping[int, Symbol]], section: str, offset: int, is_address: bool
) -> tuple[str, int] | None:
    """Returns section and offset of the function that an instruction of the file calls or refers to."""
    within = elf.section(section)
    if within is None:
        return None
    (number,) = struct.unpack_from("=i", elf.content(within), offset + 4)
    symbol = relocations.get(section, {}).get(offset)
    if symbol is None:
        return (section, offset + 8 * (1 + number))
    if not 0 < symbol.section < len(elf.sections):
        return None
    distance = number if is_address else 8 * (1 + number)
    return elf.sections[symbol.section].name, symbol.value + distance
