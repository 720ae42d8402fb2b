"""What programs cost: one `Cost` for each program, variant and kernel, and how many of them are merged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pytest_bpfmaps.verifier.walk import LineCost

ANY_KERNEL = "*"
"""The kernel of costs from a file that does not tell it, such as veristat's CSV."""
NO_VARIANT = "-"
INLINE = "inline.bpf.o"  # the name of every object of bpf.load(code=…)
ACCEPTED, REFUSED = "accepted", "refused"


class Key(NamedTuple):
    """What a cost is of: an object (its file's name), a program, a variant of its globals, and a kernel."""

    object: str
    program: str
    variant: str
    kernel: str

    @property
    def order(self) -> tuple[Any, ...]:
        """A key for sorting. Kernels are sorted by their versions: 5.10 comes before 6.1."""
        return self.object, self.program, self.variant, numbers_of(self.kernel)

    def fits(self, other: Key) -> bool:
        """Returns whether both are of the same program.

        A file of veristat has no kernel, and names the object file, not its source.
        """
        same = (self.program, self.variant) == (other.program, other.variant)
        kernels = ANY_KERNEL in (self.kernel, other.kernel) or self.kernel == other.kernel
        return same and kernels and _same_object(_stem(self.object), _stem(other.object))


def numbers_of(kernel: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a key that sorts names of kernels by their versions."""
    parts = re.split(r"[.-]", kernel)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def _same_object(one: str, other: str) -> bool:
    """Returns whether two names are of one object.

    A name without folders fits a file of that name anywhere.
    """
    if "/" in one and "/" in other:
        return one == other
    return one.rpartition("/")[2] == other.rpartition("/")[2]


def object_name(name: str, sources: tuple[Path, ...], root: Path | None) -> str:
    """Returns the name of an object in records: the paths of its sources, relative to the folder `root`.

    A source outside of `root` has only its file's name. `name` is for objects without known sources.
    """
    above = "" if root is None else os.path.join(root, "")  # each load asks, and Path.relative_to() is slow
    named = [
        text.removeprefix(above) if above and text.startswith(above) else os.path.basename(text)
        for text in map(str, sources)
    ]
    return " + ".join(named) or name


def _stem(name: str) -> str:
    return re.sub(r"\.[co]$", "", name)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the verifier said of a program.

    `figures` are numbers by name, in the order of a cost file: ``insns``, ``states``, ``peak``,
    ``max_states_per_insn``, ``jited``, ``translated``. `stack` has the bytes of each function. A figure that
    the kernel did not tell is absent. `lines` are all C lines, if they were requested. If they are not known,
    `why_no_lines` says why.
    """

    verdict: str = ACCEPTED
    figures: Mapping[str, int] = field(default_factory=dict)
    stack: tuple[int, ...] = ()
    lines: Sequence[LineCost] = ()
    why_no_lines: str = ""

    @property
    def all_figures(self) -> dict[str, int]:
        """The figures, with ``stack``: the bytes of all functions together, as veristat adds them up."""
        return {**self.figures, **({"stack": sum(self.stack)} if self.stack else {})}

    @property
    def rank(self) -> tuple[Any, ...]:
        """A key for comparing costs of one program: the one with the largest rank counts."""
        figures = self.figures.get("insns", 0), tuple(self.all_figures.values())
        return self.verdict != ACCEPTED, *figures, bool(self.lines)


Costs = dict[Key, Cost]


def add(costs: Costs, key: Key, cost: Cost) -> bool:
    """Adds a cost, and returns whether it counts.

    Of several loads of a program, the one that costs most counts, in whatever order. Of two that cost the
    same, it is the one whose lines are known.
    """
    known = costs.get(key)
    counts = known is None or (known != cost and known.rank < cost.rank)  # most loads cost what others did
    if counts:
        costs[key] = cost
    return counts


def in_order(costs: Iterable[Key]) -> list[Key]:
    """Returns the keys as a cost file has them."""
    return sorted(costs, key=lambda key: key.order)
