"""Compares the C lines of a program, by their text: which of them cost the verifier more than before.

Numbers of lines play no part, because a line that is added moves all lines below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from pytest_bpfmaps.cost.costs import Cost, Key
from pytest_bpfmaps.verifier.walk import LineCost

MOST, MOST_NEW = 10, 5
_ALIKE = 0.6  # texts with at least this share of equal characters are one line that was changed
_MOST_PAIRS = 20_000  # of texts that are compared; more would take seconds


class Place(NamedTuple):
    """What identifies a line: the file's name without folders, the function, and the text."""

    file: str
    function: str
    text: str


@dataclass(frozen=True, slots=True)
class Growth:
    """A line, what it cost `before`, and the text that it had then; both are None for a new line."""

    line: LineCost
    before: int | None = None
    was: str | None = None

    @property
    def more(self) -> int:
        """How many more instructions the verifier processed."""
        return self.line.instructions - (self.before or 0)


def place_of(line: LineCost) -> Place:
    """Returns what identifies a line. The number of blanks between words does not count."""
    return Place(Path(line.file).name, line.function, " ".join(line.text.split()))


def together(lines: Iterable[LineCost]) -> dict[Place, LineCost]:
    """Returns one line for each place, in their order. The costs of lines of one text are added."""
    found: dict[Place, LineCost] = {}
    for line in lines:
        place = place_of(line)
        known = found.get(place)
        count = line.instructions + (known.instructions if known else 0)
        number = min(filter(None, (line.line, known.line if known else 0)), default=0)
        found[place] = LineCost(place.file, number, place.text, count, place.function)
    return dict(sorted(found.items()))


def fitting(lines: Mapping[Key, Sequence[LineCost]], key: Key | None, cost: Cost) -> Sequence[LineCost]:
    """Returns the lines of a program if they are of the same recording as its cost, else none.

    They are if their sum is the number of its instructions.
    """
    found = lines.get(key, ()) if key else ()
    return found if sum(line.instructions for line in found) == cost.figures.get("insns") else ()


def growths(before: Iterable[LineCost], now: Iterable[LineCost]) -> list[Growth]:
    """Returns the lines that cost more than before, those that grew most first.

    A line whose text was changed, or that is in another function now, is compared with what it was.
    """
    old, new = together(before), together(now)
    partners = {place: place for place in new if place in old}
    partners |= _pairs([p for p in old if p not in new], [p for p in new if p not in old])
    found = []
    for place, line in new.items():
        partner = partners.get(place)
        cost = old[partner].instructions if partner else None
        was = partner.text if partner and partner.text != place.text else None
        found.append(Growth(line, cost, was))
    grown = [each for each in found if each.more > 0]
    return sorted(grown, key=lambda each: (-each.more, each.line.file, each.line.line, each.line.text))


def _pairs(gone: Sequence[Place], new: Sequence[Place]) -> dict[Place, Place]:
    """Returns for each new line the removed line that is most similar; none if no line is similar enough."""
    pairs: dict[Place, Place] = {}
    if len(gone) * len(new) > _MOST_PAIRS:
        return pairs
    likeness = sorted(((_likeness(g, n), n, g) for g in gone for n in new), key=lambda each: -each[0])
    for share, place, partner in likeness:
        if share >= _ALIKE and place not in pairs and partner not in pairs.values():
            pairs[place] = partner
    return pairs


def _likeness(gone: Place, new: Place) -> float:
    if gone.text == new.text:
        return 2.0
    if gone[:2] != new[:2]:
        return 0.0
    matcher = SequenceMatcher(None, gone.text, new.text, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= _ALIKE else 0.0


def shown(found: Sequence[Growth]) -> Iterator[str]:
    """Yields the lines of a table: those that grew most, then new lines of the source that cost less."""
    most = found[:MOST]
    new = sorted((g for g in found[MOST:] if g.before is None), key=lambda each: each.line.line)[:MOST_NEW]
    rows = [*most, *new]
    old = ["before", *(f"{each.before:,}" if each.before is not None else "new" for each in rows)]
    now = ["now", *(f"{each.line.instructions:,}" for each in rows)]
    first, second = (max(map(len, column)) for column in (old, now))
    lines = ["", *(f"  {each.line.place}{_was(each)}" for each in rows)]
    for before, cost, line in zip(old, now, lines, strict=True):
        yield f"{before:>{first}}  {cost:>{second}}{line}"
    if more := len(found) - len(rows):
        yield f"and {more} more {'line' if more == 1 else 'lines'}"


def _was(growth: Growth) -> str:
    return "" if growth.was is None else f"  (was: {growth.was})"
