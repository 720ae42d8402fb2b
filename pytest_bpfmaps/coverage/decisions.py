"""Which conditions of a decision were seen to decide alone: modified condition/decision coverage (MC/DC).

A condition decides alone if two combinations of values were seen that differ in this condition and in the
result, and in no other condition. A condition that was not evaluated, because the result was certain before,
counts as equal to any value. llvm-cov judges in the same way. The combinations may come from several tests,
kernels and runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from pytest_bpfmaps.coverage.data import Decision, FileCoverage

_VALUES = ("T", "F")


@dataclass(frozen=True)
class Condition:
    """A condition: where it begins (line and column), and whether it was seen to decide alone.

    The compiler knows the value of a `constant` condition. Such a condition can't decide, and does not count.
    """

    line: int
    column: int
    decided: bool
    constant: bool

    @property
    def missed(self) -> bool:
        """Whether it could have decided alone, and was not seen to do so."""
        return not (self.decided or self.constant)


@dataclass(frozen=True)
class Judged:
    """A decision: its line, its conditions, and the combinations of their values that were seen."""

    line: int
    conditions: Sequence[Condition]
    vectors: Sequence[str]

    @property
    def missed(self) -> list[int]:
        """Returns the numbers, from 1, of the conditions that were not seen to decide alone."""
        return [number for number, one in enumerate(self.conditions, 1) if one.missed]


def decided(vectors: Iterable[str], condition: int) -> bool:
    """Returns whether the combinations, each as in `Decision.vector`, show that a condition decides alone."""
    return any(_differ_in(a, b) == [condition] and a[-1] != b[-1] for a, b in combinations(vectors, 2))


def _differ_in(one: str, other: str) -> list[int]:
    pairs = zip(one[:-2], other[:-2], strict=True)
    return [i for i, (a, b) in enumerate(pairs) if a != b and a in _VALUES and b in _VALUES]


def judged(file: FileCoverage) -> list[Judged]:
    """Returns the decisions of a file, by place. A decision that has only constants is left out."""
    found: dict[Decision, list[str]] = {}
    for key, count in sorted(file.decisions.items()):
        vectors = found.setdefault(key._replace(vector=""), [])
        if count and key.vector:
            vectors.append(key.vector)
    outcomes: dict[tuple[int, int], set[str]] = {}
    for branch in file.branches:
        column = branch.condition.partition("-")[0]
        if column.isdecimal():
            outcomes.setdefault((branch.line, int(column)), set()).add(branch.outcome)
    made = [_judge(key, vectors, outcomes) for key, vectors in found.items()]
    return [each for each in made if not all(one.constant for one in each.conditions)]


def sums(*files: FileCoverage) -> tuple[int, int]:
    """Returns how many conditions of the files were seen to decide alone, and how many there are."""
    conditions = [
        one for file in files for each in judged(file) for one in each.conditions if not one.constant
    ]
    return sum(one.decided for one in conditions), len(conditions)


def _judge(key: Decision, vectors: Sequence[str], outcomes: dict[tuple[int, int], set[str]]) -> Judged:
    begin, end = (_place(text) for text in key.place.split("-"))
    conditions = []
    for number, text in enumerate(key.conditions.split()):
        place = _place(text.rstrip("C"))
        # A macro's condition is elsewhere, perhaps in another file, which has its outcomes.
        unknown = {"true", "false"} if not begin <= place <= end else set()
        ways = outcomes.get(place, unknown)
        constant = text.endswith("C") or len(ways) < 2
        conditions.append(Condition(*place, decided(vectors, number), constant))
    return Judged(key.line, conditions, vectors)


def _place(text: str) -> tuple[int, int]:
    line, _, column = text.partition(":")
    return int(line), int(column)
