"""Finds the loops and functions of a program in its instructions.

Source: https://docs.kernel.org/bpf/standardization/instruction-set.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_INSTRUCTION = struct.Struct("=BBhi")
_WIDE = 0x18  # takes the place of two instructions
_JMP, _JMP32 = 5, 6
_ALWAYS, _CALL, _EXIT = 0, 8, 9
_PSEUDO_CALL, _PSEUDO_FUNC = 1, 4


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction: its operation, its source register (which also tells its kind), offset and number."""

    code: int
    source: int
    offset: int
    number: int

    @property
    def jumps(self) -> bool:
        """Whether it is of the class of jumps, which has calls, too."""
        return self.code & 7 in (_JMP, _JMP32)

    @property
    def calls_function(self) -> bool:
        """Whether it calls a function of the program, by the distance `number`."""
        return self.code == _CALL << 4 | _JMP and self.source == _PSEUDO_CALL

    @property
    def takes_address(self) -> bool:
        """Whether it takes the address of a function of the program: a callback."""
        return self.code == _WIDE and self.source == _PSEUDO_FUNC


@dataclass(frozen=True, slots=True)
class LoopBody:
    """The instructions of a loop, by number. `head` is where control enters it."""

    head: int
    members: frozenset[int]


def read_instructions(raw: bytes) -> list[Instruction]:
    """Returns the instructions of a program; a wide one is followed by one without meaning."""
    return [
        Instruction(code, registers >> 4, offset, number)
        for code, registers, offset, number in _INSTRUCTION.iter_unpack(raw[: len(raw) // 8 * 8])
    ]


def successors(instructions: list[Instruction]) -> list[list[int]]:
    """Returns for each instruction the numbers of those that may follow it in the same function."""
    return [[n for n in _after(i, one) if 0 <= n < len(instructions)] for i, one in enumerate(instructions)]


def _after(index: int, one: Instruction) -> Iterator[int]:
    operation = one.code >> 4
    if one.code == _WIDE:
        yield index + 2
    elif not one.jumps or operation == _CALL:
        yield index + 1
    elif operation == _ALWAYS:
        yield index + 1 + (one.number if one.code & 7 == _JMP32 else one.offset)
    elif operation != _EXIT:
        yield index + 1
        yield index + 1 + one.offset


def loops(instructions: list[Instruction]) -> list[LoopBody]:
    """Returns all loops, an outer one before those inside of it."""
    after = successors(instructions)
    before: list[list[int]] = [[] for _ in instructions]
    for index, targets in enumerate(after):
        for target in targets:
            before[target].append(index)
    found: list[LoopBody] = []
    waiting = [frozenset(range(len(instructions)))]
    while waiting:
        for members in _components(waiting.pop(), after):
            entries = [i for i in members if any(b not in members for b in before[i])]
            head = min(entries or members)
            found.append(LoopBody(head, members))
            waiting.append(members - {head})
    return sorted(found, key=lambda loop: (loop.head, -len(loop.members)))


def _components(within: Iterable[int], after: list[list[int]]) -> list[frozenset[int]]:
    """Returns the strongly connected parts of a graph that have a circle, by Tarjan's algorithm."""
    wanted = set(within)
    inside = {node: [target for target in after[node] if target in wanted] for node in wanted}
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found = []
    for root in sorted(wanted):
        if root in index:
            continue
        work = [(root, iter(inside[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(inside[target])))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    part = _popped(stack, node)
                    on_stack -= part
                    if len(part) > 1 or node in after[node]:
                        found.append(part)
    return found


def _popped(stack: list[int], last: int) -> frozenset[int]:
    part = {stack.pop()}
    while last not in part:
        part.add(stack.pop())
    return frozenset(part)
