"""Makes counts of C lines, functions and branches out of counts of machine instructions.

The compiler has moved, merged and copied code. The count of a line is how often control came to it from
another line. A place (a column of the line) may have copies in several stretches of code without jumps: these
are added. In one stretch a place counts once. The place that ran most often gives the count of the line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pytest_bpfmaps.vm.executed.programs import CodeFunction, Program
from pytest_bpfmaps.vm.executed.record import Block

_JUMPS = (0xE9, 0xEB)  # jmp of x86, with a distance of 4 bytes and of 1 byte


@dataclass
class Counts:
    """What ran of a program, by address of the instruction.

    `passed` tells of conditional jumps how often each was not taken. `ways` tells of all jumps the address
    behind it (0 where it is always taken), and its target.
    """

    executed: Counter[int] = field(default_factory=Counter)
    passed: Counter[int] = field(default_factory=Counter)
    ways: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, block: Block) -> None:
        """Adds what ran of a block."""
        for address, count in zip(block.instructions, block.counts, strict=True):
            self.executed[address] += count
        last, end = block.instructions[-1], block.address + len(block.code)
        if block.target:
            self.passed[last] += block.passed
            self.ways[last] = end, block.target
        elif block.code[last - block.address] in _JUMPS:
            distance = block.code[last - block.address + 1 :]
            self.ways[last] = 0, end + int.from_bytes(distance, "little", signed=True)


@dataclass
class Stretch:
    """Code without jumps inside. It begins at `first`, ran `count` times, and ends with the instruction
    `last`.

    `came_from` are the stretches that led to it, each with how often control came from it.
    """

    first: int
    last: int
    count: int
    came_from: list[tuple[Stretch, int]] = field(default_factory=list)


def lines_of(program: Program, counts: Counts) -> dict[str, Any]:
    """Returns, by file, ``lines`` (line, count), ``functions`` (name, line, count), and ``branches``.

    For branches see `_branches`. Everything in the program is listed, also with a count of 0.
    """
    files: dict[str, dict[str, Any]] = {}
    for function in program.functions:
        if not function.segments:
            continue
        first = function.segments[0]
        file = _file(files, first.file)
        file["functions"].append([function.name, first.line, _entered(function, counts)])
        for name, line, count in _lines(function, counts):
            numbers = _file(files, name)["lines"]
            numbers[line] = numbers.get(line, 0) + count
        for name, branch in _branches(function, counts):
            _file(files, name)["branches"].append(branch)
    for name, file in files.items():
        file["texts"] = [(line, program.texts.get((name, line), "")) for line in file["lines"]]
        file["lines"] = sorted(file["lines"].items())
    return files


def _file(files: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    return files.setdefault(name, {"lines": {}, "functions": [], "branches": []})


def _lines(function: CodeFunction, counts: Counts) -> Iterator[tuple[str, int, int]]:
    """Gives file, line and count of each line."""
    found: dict[tuple[str, int], Counter[int]] = {}  # line -> counts by column
    for segment in function.segments:
        found.setdefault((segment.file, segment.line), Counter())
    starts = [segment.first for segment in function.segments]
    for number, stretch in enumerate(_stretches(function, counts)):
        first = function.segments[max(bisect_right(starts, stretch.first) - 1, 0)]
        # The code after a jump may belong to any line until the next place begins. So only the places that
        # begin in the stretch count. The first stretch of a function may begin after its first place.
        begins = [s for s in function.segments if stretch.first <= s.first <= stretch.last]
        begins += [] if number else [first]
        for place in {(s.file, s.line, s.column) for s in begins}:
            again = 0
            if place[:2] == (first.file, first.line):
                again = _from_same_line(function, starts, stretch, place[:2])
            found[place[:2]][place[2]] += stretch.count - again
    for (file, line), places in found.items():
        if line:  # line 0 is code that the compiler made up
            yield file, line, max(places.values(), default=0)


def _from_same_line(
    function: CodeFunction, starts: list[int], stretch: Stretch, line: tuple[str, int]
) -> int:
    """Returns how often control came to a stretch from the same line, and not in a loop."""
    again = 0
    for before, count in stretch.came_from:
        end = function.segments[max(bisect_right(starts, before.last) - 1, 0)]
        if before.first < stretch.first and (end.file, end.line) == line:
            again += count
    return min(again, stretch.count)


def _stretches(function: CodeFunction, counts: Counts) -> list[Stretch]:
    """Returns the stretches that ran, in the order of their addresses."""
    ran = sorted(a for a in counts.executed if function.first <= a < function.last and counts.executed[a])
    if not ran:
        return []
    jumps = [address for address in counts.ways if function.first <= address < function.last]
    leaders = {ran[0], *(place for jump in jumps for place in counts.ways[jump])}
    made: dict[int, Stretch] = {}
    for address in ran:
        if address in leaders:
            stretch = made[address] = Stretch(address, address, 0)
        stretch.last = address
        # A tail call enters behind the first instructions.
        stretch.count = max(stretch.count, counts.executed[address])
    in_order = list(made.values())
    for stretch, after in zip(in_order, [*in_order[1:], None], strict=True):
        ran_last = counts.executed[stretch.last]
        behind, target = counts.ways.get(stretch.last, (after.first if after else 0, 0))
        passed = counts.passed[stretch.last] if target else ran_last
        if behind in made:
            made[behind].came_from.append((stretch, passed))
        if target in made:
            made[target].came_from.append((stretch, ran_last - passed))
    return in_order


def _entered(function: CodeFunction, counts: Counts) -> int:
    """Returns how often a function was called. A tail call enters behind its first instructions."""
    stretches = _stretches(function, counts)
    is_first = bool(stretches) and stretches[0].first < function.segments[0].last
    return stretches[0].count if is_first else 0


def _branches(function: CodeFunction, counts: Counts) -> Iterator[tuple[str, list[Any]]]:
    """Gives for each conditional jump of the source its file, and line, number in the line, way, count of the
    way.

    Way 1 means that it jumped. The numbers follow the order of the jumps' addresses.
    """
    numbers: Counter[tuple[str, int]] = Counter()
    passed = sorted(counts.passed)
    for segment in function.segments:
        if not segment.conditions or not segment.line:
            continue
        within = passed[bisect_right(passed, segment.first - 1) : bisect_right(passed, segment.last - 1)]
        for at in range(segment.conditions):
            number = numbers[segment.file, segment.line]
            numbers[segment.file, segment.line] += 1
            jumps = within[-segment.conditions :]
            not_taken = counts.passed[jumps[at]] if at < len(jumps) else 0
            taken = counts.executed[jumps[at]] - not_taken if at < len(jumps) else 0
            yield segment.file, [segment.line, number, 0, not_taken]
            yield segment.file, [segment.line, number, 1, taken]
