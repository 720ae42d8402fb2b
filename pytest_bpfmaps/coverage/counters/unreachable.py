"""Finds counters that a kernel can't reach, because ``bpf_core_field_exists()`` is a constant there.

libbpf puts the answer into the program when it is loaded, and the kernel's verifier leaves out the code that
can't run with it. This module follows the instructions twice: with the answers of this kernel, and with any
answer. The difference is what this kernel can't reach. A branch that another constant decides does not count,
because it could be taken in another test.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pytest_bpfmaps.elf.editor import RELOCATION, SHT_REL, STT_FUNC, STT_SECTION, Elf, Section

_EXT_HEADER = struct.Struct("=HBBIIIIIII")
_INSTRUCTION = struct.Struct("=BBhi")
_EXISTENCE = {2, 8, 10, 12}  # enum bpf_core_relo_kind: of a field, a type, an enum's value; a type's likeness
_CALL, _EXIT, _JUMP, _JUMP_LONG, _LOAD_WIDE, _ADD_ATOMIC = 0x85, 0x95, 0x05, 0x06, 0x18, 0xDB
_PSEUDO_CALL, _PSEUDO_MAP_VALUE, _PSEUDO_FUNC = 1, 2, 4
_ALU, _ALU64, _JMP, _JMP32 = 4, 7, 5, 6
_MASK = (1 << 64) - 1


class UnknownCodeError(ValueError):
    """The instructions do something that is not followed here."""


class Value(NamedTuple):
    """What a register holds: a number, or with `counter` an offset in the section of counters.

    `answer` says whether it depends on an answer, such as that of ``bpf_core_field_exists()``.
    """

    number: int
    answer: bool = False
    counter: bool = False


_Registers = tuple[Value | None, ...]
_UNKNOWN: _Registers = (None,) * 11


@dataclass(frozen=True)
class Place:
    """A function in the object: the index of its section, and its offset there in bytes."""

    section: int
    offset: int


class ObjectCode:
    """The code of the object file at `path`. Raises `ValueError` when it can't be read.

    `answers` has the instructions into which libbpf puts an answer.
    """

    def __init__(self, path: Path) -> None:
        self._elf = Elf(path.read_bytes())
        self._symbols = self._elf.symbols()
        self.answers = set(self._existence())
        self._calls = dict(self._references())

    def function(self, name: str) -> Place:
        """Returns where a program begins."""
        for symbol in self._symbols:
            if symbol.name == name and symbol.type == STT_FUNC:
                return Place(symbol.section, symbol.value)
        raise UnknownCodeError(f"no function {name}")

    def called(self, at: Place) -> Place:
        """Returns the function that an instruction calls or refers to."""
        found = self._calls.get(at)
        if found is not None:
            return found
        code = self._elf.content(self._elf.sections[at.section])
        _, _, _, operand = _INSTRUCTION.unpack_from(code, at.offset)
        return Place(at.section, at.offset + 8 + operand * 8)

    def _existence(self) -> Iterator[Place]:
        ext, btf = self._elf.section(".BTF.ext"), self._elf.section(".BTF")
        if ext is None or btf is None:
            return
        raw, names = self._elf.content(ext), self._strings(self._elf.content(btf))
        *_, header, _, _, _, _, offset, length = _EXT_HEADER.unpack_from(raw)
        at, end = header + offset, header + offset + length
        if not length or header < _EXT_HEADER.size:
            return
        (size,) = struct.unpack_from("=I", raw, at)
        at += 4
        while at + 8 <= end:
            name, count = struct.unpack_from("=II", raw, at)
            section = self._elf.section(names[name : names.index(b"\0", name)].decode())
            at += 8
            for _ in range(count):
                instruction, _, _, kind = struct.unpack_from("=IIII", raw, at)
                if section is not None and kind in _EXISTENCE:
                    yield Place(section.index, instruction)
                at += size

    def _strings(self, btf: bytes) -> bytes:
        header, _, _, offset, length = struct.unpack_from("=IIIII", btf, 4)
        return btf[header + offset : header + offset + length]

    def _references(self) -> Iterator[tuple[Place, Place]]:
        for table in self._elf.sections:
            if table.type != SHT_REL:
                continue
            code = self._elf.content(self._elf.sections[table.info])
            for at, info in RELOCATION.iter_unpack(self._elf.content(table)):
                target = self._target(self._elf.sections[table.info], code, at, info >> 32)
                if target is not None:
                    yield Place(table.info, at), target

    def _target(self, section: Section, code: bytes, at: int, number: int) -> Place | None:
        symbol = self._symbols[number]
        if section.name.startswith(".") and section.name != ".text":
            return None
        kind, _, _, value = _INSTRUCTION.unpack_from(code, at)
        if symbol.type == STT_FUNC:
            return Place(symbol.section, symbol.value)
        if symbol.type != STT_SECTION:
            return None
        return Place(symbol.section, (value + 1) * 8 if kind == _CALL else value)


def unreachable(code: ObjectCode, programs: Iterable[tuple[str, bytes, int]]) -> set[int] | None:
    """Returns the counters, by index, that no program can reach here; None if none depends on an answer.

    Each program is its name, its instructions as the kernel gets them, and the descriptor of the map with the
    counters.
    """
    if not code.answers:
        return None
    here: set[int] = set()
    anywhere: set[int] = set()
    try:
        for name, raw, counters in programs:
            here |= _Walk(code, raw, counters, answered=True).counters(name)
            anywhere |= _Walk(code, raw, counters, answered=False).counters(name)
    except (UnknownCodeError, IndexError, struct.error):
        return None  # no line may be called unreachable if that is not certain
    return anywhere - here


class _Walk:
    """Follows the instructions of a program. With `answered`, a branch that an answer decides has one way."""

    def __init__(self, code: ObjectCode, raw: bytes, counters: int, *, answered: bool) -> None:
        self._code = code
        self._instructions = list(_INSTRUCTION.iter_unpack(raw))
        self._map = counters
        self._answered = answered
        self._functions: dict[int, Place] = {}
        self._states: dict[int, _Registers] = {}
        self._owner: dict[int, int] = {}
        self._waiting: list[int] = []
        self._lost = False

    def counters(self, name: str) -> set[int]:
        """Returns the counters that are reached. Raises `UnknownCodeError` when it is not sure which."""
        self._enter(0, self._code.function(name))
        while self._waiting:
            self._step(self._waiting.pop())
        found: set[int] = set()
        for at, state in self._states.items():
            kind, registers, offset, _ = self._instructions[at]
            target = state[registers & 15]
            if kind == _ADD_ATOMIC and target is not None and target.counter:
                found.add((target.number + offset) // 8)
        if self._lost:
            raise UnknownCodeError("a counter's place is not known")
        return found

    def _enter(self, at: int, place: Place) -> None:
        if at not in self._functions:
            self._functions[at] = place
            self._go(at, _UNKNOWN, at)

    def _go(self, at: int, state: _Registers, owner: int) -> None:
        """Notes that the instruction `at` can be reached with `state`."""
        known = self._states.get(at)
        merged = state if known is None else tuple(map(self._merge, known, state))
        if merged != known:
            self._states[at], self._owner[at] = merged, owner
            self._waiting.append(at)

    def _merge(self, one: Value | None, other: Value | None) -> Value | None:
        if one == other:
            return one
        if (one is not None and one.counter) or (other is not None and other.counter):
            # The register may hold two counters. That is an error only if an instruction counts with it.
            return None if one is None or other is None else Value(-1, counter=True)
        if one is not None and other is not None and one.number == other.number:
            return Value(one.number, one.answer or other.answer)
        return None

    def _step(self, at: int) -> None:
        kind, registers, offset, operand = self._instructions[at]
        state, owner = list(self._states[at]), self._owner[at]
        target, source = registers & 15, registers >> 4
        if kind == _EXIT:
            return
        if kind in (_JUMP, _JUMP_LONG):
            self._go(at + 1 + (offset if kind == _JUMP else operand), tuple(state), owner)
            return
        if kind == _LOAD_WIDE:
            self._wide(at, state, target, source, owner)
            return
        place = self._place(at, owner)
        if kind == _CALL:
            if source == _PSEUDO_CALL:
                self._enter(at + 1 + operand, self._code.called(place))
            state[:6] = [None] * 6
        elif kind & 7 in (_JMP, _JMP32):
            for taken in self._taken(kind, state[target], state[source] if kind & 8 else Value(operand)):
                self._go(at + 1 + (offset if taken else 0), tuple(state), owner)
            return
        elif kind & 7 in (_ALU, _ALU64):
            by = state[source] if kind & 8 else Value(operand & _MASK, place in self._code.answers)
            state[target] = _computed(kind, offset, state[target], by)
        elif kind & 7 == 1:  # a load
            state[target] = None
        elif kind & 7 == 3 and kind & 0xE0 == 0xC0:  # an atomic operation, which may load
            self._atomic(state, target, source, operand)
        self._go(at + 1, tuple(state), owner)

    def _atomic(self, state: list[Value | None], target: int, source: int, operand: int) -> None:
        found = state[target]
        if found is not None and found.counter and found.number < 0:
            self._lost = True
        if operand & 1:
            state[source] = None
        if operand & 0xF0 == 0xF0:
            state[0] = None

    def _place(self, at: int, owner: int) -> Place:
        begins = self._functions[owner]
        return Place(begins.section, begins.offset + (at - owner) * 8)

    def _wide(self, at: int, state: list[Value | None], target: int, source: int, owner: int) -> None:
        _, _, _, operand = self._instructions[at]
        state[target] = None
        if source == _PSEUDO_FUNC:
            self._enter(at + 1 + operand, self._code.called(self._place(at, owner)))
        elif source == _PSEUDO_MAP_VALUE and operand == self._map:
            state[target] = Value(self._instructions[at + 1][3], counter=True)
        self._go(at + 2, tuple(state), owner)

    def _taken(self, kind: int, one: Value | None, other: Value | None) -> tuple[bool, ...]:
        """Returns the outcomes that a conditional jump can have: True is taken, False is not taken."""
        if one is None or other is None or not self._answered or not (one.answer or other.answer):
            return (True, False)
        return (_holds(kind, one.number, other.number),)


def _holds(kind: int, one: int, other: int) -> bool:
    bits = 32 if kind & 7 == _JMP32 else 64
    a, b = one % (1 << bits), other % (1 << bits)
    signed_a, signed_b = (n - (n >> (bits - 1) << bits) for n in (a, b))
    results = {
        0x10: a == b,
        0x20: a > b,
        0x30: a >= b,
        0x40: bool(a & b),
        0x50: a != b,
        0x60: signed_a > signed_b,
        0x70: signed_a >= signed_b,
        0xA0: a < b,
        0xB0: a <= b,
        0xC0: signed_a < signed_b,
        0xD0: signed_a <= signed_b,
    }
    if kind & 0xF0 not in results:
        raise UnknownCodeError(f"jump {kind:#x}")
    return results[kind & 0xF0]


def _computed(kind: int, offset: int, one: Value | None, by: Value | None) -> Value | None:
    """Returns the result of an arithmetic instruction; None if it is not known."""
    operation, wide = kind & 0xF0, kind & 7 == _ALU64
    if by is None or (operation != 0xB0 and one is None):
        return None
    if operation == 0xB0:  # mov
        if offset:  # it extends the sign
            return None
        return by if wide or by.counter else Value(by.number & 0xFFFFFFFF, by.answer)
    assert one is not None
    if one.counter or by.counter:
        return Value(one.number + by.number, counter=True) if operation == 0 and not by.counter else None
    mask = _MASK if wide else 0xFFFFFFFF
    a, b = one.number & mask, by.number & mask
    results = {0x00: a + b, 0x10: a - b, 0x40: a | b, 0x50: a & b, 0xA0: a ^ b}
    shift = b & (63 if wide else 31)
    results |= {0x60: a << shift, 0x70: a >> shift}
    if operation not in results:
        return None
    return Value(results[operation] & mask, one.answer or by.answer)
