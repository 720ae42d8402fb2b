"""A program of a guest, as the kernel describes it: where its machine code is, and its line information.

All of it comes from a guest, which is not trusted. So anything wrong in it is a `ValueError`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_bpfmaps.btf.types import Btf
from pytest_bpfmaps.vm.executed.conditions import trailing_conditions
from pytest_bpfmaps.vm.executed.reasons import NO_LINES, reason

_LINE = struct.Struct("=IIII")  # struct bpf_line_info: instruction, file name, line, line and column
_FUNCTION = struct.Struct("=II")  # struct bpf_func_info: instruction, type


@dataclass(frozen=True, slots=True)
class Segment:
    """Machine code from `first` up to `last` (not included) that came from one place of the source.

    `conditions` is how many conditional jumps at its end come from the source.
    """

    first: int
    last: int
    file: str
    line: int
    column: int
    conditions: int


@dataclass(frozen=True, slots=True)
class CodeFunction:
    """A function of a program. A static function that was inlined is not one."""

    name: str
    first: int
    last: int
    code: bytes
    segments: list[Segment] = field(default_factory=list)


@dataclass(frozen=True)
class Program:
    """A program of a guest; `why` tells why it can't be measured, and is empty when it can.

    `texts` are lines, by file and number, as they were compiled. `pid` and `comm` are of the process that has
    loaded it, 0 and empty where that is not known.
    """

    id: int
    name: str
    functions: list[CodeFunction]
    why: str = ""
    texts: Mapping[tuple[str, int], str] = field(default_factory=dict)
    pid: int = 0
    comm: str = ""

    def function_at(self, address: int) -> CodeFunction | None:
        """Returns the function whose code is at `address`."""
        return next((each for each in self.functions if each.first <= address < each.last), None)

    def differing(self, address: int, code: bytes) -> int | None:
        """Returns in how many bytes `code` at `address` differs from this program; None if it is outside."""
        function = self.function_at(address)
        if function is None:
            return None
        start = address - function.first
        mine = function.code[start : start + len(code)]
        if mine == code:
            return 0
        return sum(a != b for a, b in zip(mine, code, strict=False)) + len(code) - len(mine)

    def has_lines_of(self, other: Program) -> bool:
        """Returns whether the same code has the same lines in another program."""
        return [f.segments for f in self.functions] == [f.segments for f in other.functions]


def read_program(facts: Mapping[str, Any], types: Btf | None) -> Program:
    """Reads what `kernel.program_code` found, with its bytes in base64; `types` is the program's BTF.

    Raises ValueError.
    """
    try:
        return _read(facts, types)
    except (LookupError, TypeError, struct.error, AttributeError) as error:
        raise ValueError(f"the guest sent wrong facts about a program: {error!r}") from error


def _read(facts: Mapping[str, Any], types: Btf | None) -> Program:
    number, name = int(facts["id"]), str(facts["name"])
    loader: Any = {"pid": int(facts["pid"]), "comm": str(facts["comm"])}
    starts = _numbers("Q", facts["jited_ksyms"])
    sizes = _numbers("I", facts["jited_func_lens"])
    code = _bytes(facts["jited_prog_insns"])
    why = reason(facts)
    if not starts:
        return Program(number, name, [], why, **loader)
    functions, at = [], 0
    names = _function_names(facts, types, name)
    for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        called = names[index] if index < len(names) else name
        functions.append(CodeFunction(called, start, start + size, code[at : at + size]))
        at += size
    if why or types is None:
        return Program(number, name, functions, why or NO_LINES, **loader)
    texts = _add_segments(functions, facts, types)
    return Program(number, name, functions, texts=texts, **loader)


def _function_names(facts: Mapping[str, Any], types: Btf | None, name: str) -> list[str]:
    if types is None:
        return [name]
    records = _records(_bytes(facts["func_info"]), int(facts["func_info_rec_size"]), _FUNCTION)
    return [types.type(kind).name for _, kind in records]


def _add_segments(
    functions: list[CodeFunction], facts: Mapping[str, Any], types: Btf
) -> dict[tuple[str, int], str]:
    """Returns the texts of the lines."""
    lines = list(_records(_bytes(facts["line_info"]), int(facts["line_info_rec_size"]), _LINE))
    addresses = _numbers("Q", facts["jited_line_info"])
    instructions = _bytes(facts["xlated_prog_insns"])
    ends = [*(first for first, *_ in lines[1:]), len(instructions) // 8]
    functions = sorted(functions, key=lambda each: each.first)
    found: dict[int, list[tuple[int, Segment]]] = {}
    for index, ((first, file, _, place), address) in enumerate(zip(lines, addresses, strict=True)):
        owner = next((each for each in functions if each.first <= address < each.last), None)
        if owner is None:
            continue
        conditions = trailing_conditions(instructions[8 * first : 8 * ends[index]])
        segment = Segment(address, address, types.string(file), place >> 10, place & 0x3FF, conditions)
        found.setdefault(owner.first, []).append((address, segment))
    for owner in functions:
        parts = sorted(found.get(owner.first, ()), key=lambda part: part[0])
        ends = [*(address for address, _ in parts[1:]), owner.last]
        owner.segments.extend(
            Segment(s.first, end, s.file, s.line, s.column, s.conditions)
            for (_, s), end in zip(parts, ends, strict=True)
        )
    return {(types.string(file), place >> 10): types.string(text) for _, file, text, place in lines}


def _records(data: bytes, size: int, form: struct.Struct) -> Iterable[tuple[Any, ...]]:
    if size < form.size:
        return []
    return [form.unpack_from(data, at) for at in range(0, len(data) - form.size + 1, size)]


def _numbers(form: str, data: str) -> list[int]:
    raw, size = _bytes(data), struct.calcsize(form)
    return list(struct.unpack(f"={len(raw) // size}{form}", raw))


def _bytes(data: str) -> bytes:
    return base64.b64decode(data)
