"""Follows what registers and the stack of a function hold, as far as its instructions tell.

A value is a tuple whose first part is its kind. None stands for a value that is not known: two paths through
the function join with different values, or no rule here describes the value.

- ``("const", number)``, ``("fp", offset)``: a place on the stack
- ``("ctx",)``, ``("field",)``: the context, and what was read from it
- ``("packet",)``: bytes of a packet; ``("own",)``: what only one CPU or one thread has, such as its id
- ``("map", name)``, ``("value", map, offset, call, key)``: a map, and a pointer into a value that the lookup
  at `call` gave; `key` is the kind of its key
- ``("global", section, offset)``: a pointer to a variable
- ``("load", place, size, added)``: the number that was read at such a place; `added`: plus something

Source: https://docs.kernel.org/bpf/standardization/instruction-set.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_bpfmaps.cost.register_uses import FETCH_ADD, fetches_into, is_atomic, reads, writes
from pytest_bpfmaps.verifier.control_flow import Instruction, successors

Value = tuple[Any, ...] | None
Stack = dict[tuple[int, int], Value]  # by offset and size
LOOKUP, UPDATE, DELETE, PUSH, POP, PEEK = 1, 2, 3, 87, 88, 89
_ON_MAPS = frozenset({LOOKUP, UPDATE, DELETE, PUSH, POP, PEEK})
_OWN = frozenset({8, 14, 35, 158})  # the CPU's number, the thread's id, its task
SPIN_LOCK = 93
_LDX, _ST, _STX, _ALU, _ALU64 = 1, 2, 3, 4, 7
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_MEM = 0x60
_ADD, _SUB, _OR, _AND, _LSH, _RSH, _MOV = 0x00, 0x10, 0x40, 0x50, 0x60, 0x70, 0xB0
_FOLDED = {
    _OR: lambda a, b: a | b,
    _AND: lambda a, b: a & b,
    _LSH: lambda a, b: a << (b & 63),
    _RSH: lambda a, b: a >> (b & 63),
}
_ALL = (1 << 64) - 1
_MOST_VISITS = 64  # of one instruction, before its values are given up


@dataclass(frozen=True, slots=True)
class Access:
    """What an instruction does with a map, a value or a variable.

    `what` is ``load``, ``store``, ``add`` (atomic), ``fetch`` (any other atomic operation), ``lost add`` (a
    store of the number that was read there, plus something), or the number of a helper. `place` is a value as
    above. `key` is what is known of the key: a number, a kind, or None; of a push it is the value of its
    flags.
    """

    index: int
    what: str | int
    place: tuple[Any, ...]
    size: int = 0
    key: Any = None


@dataclass(slots=True)
class Reading:
    """What a function does.

    `escaped`: the maps that may also be used in ways that are not known; None stands for any map. `locks`: it
    takes a spin lock. `unknown_pointers`: it reads or writes through a pointer that is not known.
    """

    accesses: dict[tuple[int, str | int], Access] = field(default_factory=dict)
    escaped: set[str | None] = field(default_factory=set)
    locks: bool = False
    unknown_pointers: bool = False


@dataclass(slots=True)
class _State:
    registers: list[Value]
    stack: Stack

    def copy(self) -> _State:
        return _State(list(self.registers), dict(self.stack))

    def meets(self, other: _State) -> bool:
        """Forgets the values that differ on another path. Returns whether there were any."""
        changed = False
        for number, value in enumerate(self.registers):
            if value is not None and value != other.registers[number]:
                self.registers[number], changed = None, True
        for place in [p for p, value in self.stack.items() if other.stack.get(p) != value]:
            del self.stack[place]
            changed = True
        return changed


class Function:
    """The instructions of a function. `refers` has what wide instructions load, by their number.

    `key_sizes` are the maps' sizes of keys. `has_packets` says whether the context leads to a packet.
    """

    def __init__(
        self,
        instructions: list[Instruction],
        destinations: list[int],
        refers: Mapping[int, Value],
        key_sizes: Mapping[str, int],
        *,
        has_packets: bool,
        is_program: bool,
    ) -> None:
        self._code, self._destinations, self._refers = instructions, destinations, refers
        self._key_sizes, self._has_packets = key_sizes, has_packets
        self._is_program = is_program
        self.after = successors(instructions)
        self.reading = Reading()

    def read(self) -> Reading:
        """Follows all paths through the function until nothing changes, then notes what is accessed."""
        first = _State([None] * 11, {})
        first.registers[10] = ("fp", 0)
        if self._is_program:
            first.registers[1] = ("ctx",)
        states: dict[int, _State] = {0: first} if self._code else {}
        visits: dict[int, int] = {}
        waiting = list(states)
        while waiting:
            index = waiting.pop()
            visits[index] = visits.get(index, 0) + 1
            state = states[index].copy()
            if visits[index] > _MOST_VISITS:
                continue
            self._step(index, state, note=False)
            for target in self.after[index]:
                if target not in states:
                    states[target] = state.copy()
                    waiting.append(target)
                elif states[target].meets(state):
                    waiting.append(target)
        for index, state in states.items():
            self._step(index, state.copy(), note=True)
        return self.reading

    def _step(self, index: int, state: _State, *, note: bool) -> None:
        one, dst = self._code[index], self._destinations[index]
        kind = one.code & 7
        if one.code == 0x18:
            state.registers[dst] = self._refers.get(index, ("const", one.number & _ALL))
        elif kind in (_ALU, _ALU64):
            state.registers[dst] = _calculated(one, state.registers[dst], state.registers[one.source])
        elif kind == _LDX:
            state.registers[dst] = self._load(index, state, note)
        elif kind in (_ST, _STX):
            self._store(index, state, note)
        elif one.code == 0x85:
            self._call(index, state, note)
        elif kind == 0:  # the old instructions that read a packet
            state.registers[0:6] = [None] * 6

    def _note(self, access: Access) -> None:
        self.reading.accesses[access.index, access.what] = access

    def _load(self, index: int, state: _State, note: bool) -> Value:
        one = self._code[index]
        base, size = state.registers[one.source], _SIZES[one.code & 0x18]
        if base is None or one.code & 0xE0 != _MEM:
            self.reading.unknown_pointers |= note
            return None
        match base[0]:
            case "fp":
                return state.stack.get((base[1] + one.offset, size))
            case "ctx":
                return ("field",)
            case "field" | "packet":
                return ("packet",) if self._has_packets else None
            case "value" | "global":
                place = _moved(base, one.offset)
                if place is None:
                    self._escape(base, note)
                    return None
                if note:
                    self._note(Access(index, "load", place, size))
                return ("load", place, size, False)
        return None

    def _store(self, index: int, state: _State, note: bool) -> None:
        one, dst = self._code[index], self._destinations[index]
        base, size = state.registers[dst], _SIZES[one.code & 0x18]
        source = state.registers[one.source] if one.code & 7 == _STX else ("const", one.number & _ALL)
        fetched = fetches_into(one) if is_atomic(one) else None
        if fetched is not None:
            state.registers[fetched] = None
        if base is None:
            state.stack.clear()  # it may be the stack
            self.reading.unknown_pointers |= note
            self._escape(source, note)
            return
        if base[0] == "fp":
            _overwrite(state.stack, base[1] + one.offset, size)
            if not is_atomic(one):
                state.stack[base[1] + one.offset, size] = source
            return
        self._escape(source, note)
        place = _moved(base, one.offset) if base[0] in ("value", "global") else None
        if place is None:
            self._escape(base, note)
        elif note:
            self._note(Access(index, self._kind_of_store(index, place, size, source), place, size))

    def _call(self, index: int, state: _State, note: bool) -> None:
        one, registers = self._code[index], state.registers
        arguments = registers[1:6]
        result: Value = None
        known = one.source == 0 and one.number in _ON_MAPS and arguments[0] is not None
        if known and arguments[0][0] == "map":  # type: ignore[index]
            name = arguments[0][1]  # type: ignore[index]
            key: Any = arguments[2] if one.number == PUSH else None
            if one.number in (LOOKUP, UPDATE, DELETE):
                key = self._key(state, name, arguments[1])
            if note:
                self._note(Access(index, one.number, ("map", name), key=key))
            if one.number == LOOKUP:
                result = ("value", name, 0, index, key)
            for value in arguments[2:3] if one.number == UPDATE else []:
                self._escape(value, note) if value is not None and value[0] == "value" else None
        else:
            if one.source == 0 and one.number in _ON_MAPS and note:
                self.reading.escaped.add(None)  # a map that is not known
            for value in arguments:
                self._escape(value, note)
            if any(value is not None and value[0] == "fp" for value in arguments) or one.source:
                for value in state.stack.values():
                    self._escape(value, note)
                state.stack.clear()
        if one.source == 0 and one.number in _OWN:
            result = ("own",)
        if one.source == 0 and one.number == SPIN_LOCK:
            self.reading.locks = True
        registers[0:6] = [result, None, None, None, None, None]

    def _key(self, state: _State, name: str, at: Value) -> Any:
        """Returns the number of a key, the kind ``packet`` or ``own``; None if it is not known."""
        size = self._key_sizes.get(name, 0)
        if at is None or at[0] != "fp" or not size:
            return None
        parts = [(place, v) for place, v in state.stack.items() if at[1] <= place[0] < at[1] + size]
        if sum(place[1] for place, _ in parts) != size or any(v is None for _, v in parts):
            return None
        kinds = {value[0] for _, value in parts if value is not None}
        if kinds == {"const"}:
            return parts[0][1][1] & ((1 << 8 * size) - 1) if len(parts) == 1 else "const"  # type: ignore[index]
        return "own" if "own" in kinds else "packet" if kinds <= {"packet", "const"} else None

    def _escape(self, value: Value, note: bool) -> None:
        if note and value is not None and value[0] in ("map", "value"):
            self.reading.escaped.add(value[1])

    def reads_result(self, call: int) -> bool:
        """Returns whether any path after a call reads its result."""
        return self._is_read(call, 0)

    def _is_read(self, start: int, register: int) -> bool:
        """Returns whether any path after an instruction reads a register before it is written again."""
        seen: set[int] = set()
        waiting = list(self.after[start])
        while waiting:
            index = waiting.pop()
            if index in seen:
                continue
            seen.add(index)
            if reads(self._code[index], self._destinations[index], register):
                return True
            if not writes(self._code[index], self._destinations[index], register):
                waiting += self.after[index]
        return False

    def reachable(self, start: int) -> set[int]:
        """Returns all instructions that may run after one."""
        seen: set[int] = set()
        waiting = list(self.after[start])
        while waiting:
            index = waiting.pop()
            if index not in seen:
                seen.add(index)
                waiting += self.after[index]
        return seen

    def _kind_of_store(self, index: int, place: tuple[Any, ...], size: int, source: Value) -> str:
        one = self._code[index]
        if not is_atomic(one):
            return "lost add" if source == ("load", place, size, True) else "store"
        # clang 20 and later fetch the result of __sync_fetch_and_add() even if the program does not use it.
        is_add = one.number == _ADD or (one.number == FETCH_ADD and not self._is_read(index, one.source))
        return "add" if is_add else "fetch"


def _moved(base: tuple[Any, ...], by: int) -> tuple[Any, ...] | None:
    """Returns a pointer to a value or variable, moved by `by` bytes; None if its offset is not known."""
    if base[2] is None:
        return None
    return (*base[:2], base[2] + by, *base[3:])


def _overwrite(stack: Stack, offset: int, size: int) -> None:
    for place in [p for p in stack if p[0] < offset + size and offset < p[0] + p[1]]:
        del stack[place]


def _calculated(one: Instruction, left: Value, source: Value) -> Value:
    """Returns what an arithmetic instruction gives."""
    operation, wide = one.code & 0xF0, one.code & 7 == _ALU64
    right: Value = source if one.code & 8 else ("const", one.number & _ALL)
    if operation == _MOV:
        if one.offset:  # it extends the sign
            return None
        return right if wide or right is None or right[0] in ("own", "load", "packet") else _short(right)
    if left is None or right is None:
        return _with_unknown(operation, left, right)
    if left[0] == "const" and right[0] == "const":
        return _folded(operation, wide, left[1], right[1])
    if operation in (_ADD, _SUB):
        return _sum(operation, left, right)
    kinds = {left[0], right[0]}
    return next(((kind,) for kind in ("own", "packet") if kind in kinds), None)


def _short(value: Value) -> Value:
    return ("const", value[1] & 0xFFFFFFFF) if value is not None and value[0] == "const" else None


def _with_unknown(operation: int, left: Value, right: Value) -> Value:
    """Returns the result of an operation on a known and an unknown number."""
    known = left if right is None else right
    if known is None or operation not in (_ADD, _SUB):
        return ("own",) if known == ("own",) else None
    if known[0] == "load" and (operation == _ADD or known is left):
        return (*known[:3], True)
    if known[0] in ("value", "global"):
        return (*known[:2], None, *known[3:])
    return known if known[0] in ("own", "packet") else None


def _folded(operation: int, wide: bool, left: int, right: int) -> Value:
    if not wide:
        left, right = left & 0xFFFFFFFF, right & 0xFFFFFFFF
    if operation in (_ADD, _SUB):
        number = left + right if operation == _ADD else left - right
    elif operation in _FOLDED:
        number = _FOLDED[operation](left, right)
    else:
        return None
    return ("const", number & (_ALL if wide else 0xFFFFFFFF))


def _sum(operation: int, left: tuple[Any, ...], right: tuple[Any, ...]) -> Value:
    if right[0] == "const" and left[0] in ("fp", "value", "global"):
        number = right[1] - (1 << 64) if right[1] >> 63 else right[1]
        by = number if operation == _ADD else -number
        return (left[0], left[1] + by) if left[0] == "fp" else _moved(left, by)
    if left[0] == "load":
        return (*left[:3], True)
    if right[0] == "load" and operation == _ADD:
        return (*right[:3], True)
    kinds = {left[0], right[0]}
    for kind in ("own", "packet"):
        if kind in kinds:
            return (kind,)
    if left[0] in ("value", "global"):
        return (*left[:2], None, *left[3:])
    return None
