"""Loads a program once more, to see by a log of each step what the verifier's walk cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.objects.instruction_places import Places
from pytest_bpfmaps.verifier.control_flow import LoopBody, loops, read_instructions
from pytest_bpfmaps.verifier.figures import read_figures
from pytest_bpfmaps.verifier.log_buffers import LEVEL_EACH_STEP, LEVEL_STATS, WHOLE_SIZES
from pytest_bpfmaps.verifier.visits import Visits, read_visits
from pytest_bpfmaps.verifier.walk import LineCost, LoopCost, Walk

LoadOnly = Callable[[int, int], tuple[int, str]]
"""Loads a program with a log of this level and size; returns the number of the error, and the log."""


def whole_log(load_only: LoadOnly, name: str) -> str:
    """Returns the log of each step of a program, or as much of it as the kernel gives.

    Raises `LoadError` when the program can't be loaded again.
    """
    text = ""
    for size in WHOLE_SIZES[1:]:
        _, more = load_only(LEVEL_EACH_STEP | LEVEL_STATS, size)
        visits, processed = read_visits(more), read_figures(more).instructions
        if not visits.total and not text:
            raise LoadError(
                "cannot load again, to see what the verifier walks,",
                on=f"program {name!r}",
                why=(more.strip().splitlines() or ["the kernel wrote no log"])[-1],
                fix="use program.verifier.instructions, which needs no second load",
            )
        text = more if visits.total else text
        if visits.total == processed:
            break
    return text


def walk_of(path: Path, name: str, raw: bytes, log: str) -> Walk:
    """Returns what a log of each step says of the program `name` of the object at `path`.

    `raw` has its instructions, as libbpf gave them to the kernel.
    """
    instructions, visits = read_instructions(raw), read_visits(log)
    places = Places(path, name, instructions)
    of = _Lines(places, visits)
    counts: Counter[tuple[str, int, str, str]] = Counter()
    for number, count in visits.counts.items():
        counts[of.line(number)] += count
    lines = [LineCost(file, line, text, count, func) for (file, line, text, func), count in counts.items()]
    lines.sort(key=lambda each: (-each.instructions, each.file, each.line, each.text))
    found = [of.loop(body) for body in loops(instructions) if visits.counts[body.head]]
    return Walk(visits.total, tuple(lines), tuple(found))


class _Lines:
    """Finds the lines of instructions: in the object file, else in the log."""

    def __init__(self, places: Places, visits: Visits) -> None:
        self._places, self._visits = places, visits

    def line(self, number: int) -> tuple[str, int, str, str]:
        """Returns file, line, text and function."""
        function = self._places.function_of(number)
        name = function.name if function else ""
        found = self._places.line_of(number)
        if found is not None:
            return found.file, found.line, found.text, name
        text, file, line = self._visits.texts.get(number, ("", "", 0))
        return file, line, text, name

    def loop(self, body: LoopBody) -> LoopCost:
        """Returns the cost of a loop, at its first line that is not of a function that was inlined."""
        function = self._places.function_of(body.head)
        first = self.line(function.first if function else 0)
        lines = [self.line(number) for number in sorted(body.members)]
        own = [line for line in lines if line[0] == first[0] and line[1] >= first[1] > 0]
        file, line, text, name = min(own, key=lambda each: each[1], default=self.line(body.head))
        return LoopCost(file, line, text, self._visits.counts[body.head], name)
