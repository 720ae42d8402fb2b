"""From counts of machine instructions to counts of C lines, functions and branches.

The compiler has moved, merged and copied code. What is counted for a line is how often control came to it
from another line. Copies of a place (a column of the line) in several stretches of code without jumps are
added; in one stretch a place counts once. The place that ran most often tells for the line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pytest_bpfmaps.vm.executed.programs import CodeFunction, Program
from pytest_bpfmaps.vm.executed.record import Block

_JUMPS = (0xE9, 0xEB)  # jmp of x86, with 4 and 1 bytes of distance


@dataclass
class Counts:
    """What ran of a program, by address of the instruction.

    `passed` is of conditional jumps: how often each was not taken. `ways` are of all jumps: the address
    behind it, or 0 where it is always taken, and its target.
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
    """Code without jumps in it: begins at `first`, ran `count` times, and ends with the instruction `last`.

    `came_from` are stretches before it, with how often control came from each.
    """

    first: int
    last: int
    count: int
    came_from: list[tuple[Stretch, int]] = field(default_factory=list)


def lines_of(program: Program, counts: Counts) -> dict[str, Any]:
    """By file: ``lines`` (line, count), ``functions`` (name, line, count), ``branches``, see `_branches`.

    All that there is of the program is told, also with a count of 0.
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
    return {name: {**file, "lines": sorted(file["lines"].items())} for name, file in files.items()}


def _file(files: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    return files.setdefault(name, {"lines": {}, "functions": [], "branches": []})


def _lines(function: CodeFunction, counts: Counts) -> Iterator[tuple[str, int, int]]:
    """File, line, count."""
    found: dict[tuple[str, int], Counter[int]] = {}  # for each line, by column
    for segment in function.segments:
        found.setdefault((segment.file, segment.line), Counter())
    starts = [segment.first for segment in function.segments]
    for stretch in _stretches(function, counts):
        first = function.segments[max(bisect_right(starts, stretch.first) - 1, 0)]
        within = [s for s in function.segments if stretch.first < s.first <= stretch.last]
        for place in {(s.file, s.line, s.column) for s in (first, *within)}:
            again = 0
            if place[:2] == (first.file, first.line):
                again = _from_same_line(function, starts, stretch, place[:2])
            found[place[:2]][place[2]] += stretch.count - again
    for (file, line), places in found.items():
        if line:  # else it is no line of the source, but what the compiler made up
            yield file, line, max(places.values(), default=0)


def _from_same_line(
    function: CodeFunction, starts: list[int], stretch: Stretch, line: tuple[str, int]
) -> int:
    """How often control came to a stretch out of the same line, and not in a loop."""
    again = 0
    for before, count in stretch.came_from:
        end = function.segments[max(bisect_right(starts, before.last) - 1, 0)]
        if before.first < stretch.first and (end.file, end.line) == line:
            again += count
    return min(again, stretch.count)


def _stretches(function: CodeFunction, counts: Counts) -> list[Stretch]:
    """Those that ran, in the order of their addresses."""
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
        # a tail call enters behind the first instructions
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
    """How often it was called: a tail call enters behind its first instructions."""
    stretches = _stretches(function, counts)
    is_first = bool(stretches) and stretches[0].first < function.segments[0].last
    return stretches[0].count if is_first else 0


def _branches(function: CodeFunction, counts: Counts) -> Iterator[tuple[str, list[Any]]]:
    """Of each conditional jump of the source: the file; line, number in the line, way, count of that way.

    Way 1 is that it jumped. Jumps have numbers in the order of their addresses.
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
