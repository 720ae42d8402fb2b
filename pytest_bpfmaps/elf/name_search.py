"""Finds names in one long text, without making an object of each.

A kernel has 200,000 symbols. Making a list of their names takes an emulated machine a second; a search in the
text takes milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import translate
from itertools import islice

from pytest_bpfmaps.errors import closest

_NAME = re.compile(rb"[\w.$]*")
_MOST_COMPARED = 600
_MOST_CHECKED = 8
_SHORT = 8  # letters; a longer misspelt name still has four correct letters in a row
_SIMILAR = 0.5  # as in `closest`
_CLOSE = 0.7  # the least similarity of a misspelt name and the right one


class Names:
    """The names in a text, each after the byte `before`; `shown_by` is a command that prints them."""

    def __init__(self, text: bytes, before: bytes = b"\n", shown_by: str = "") -> None:
        self._text = text
        self._before = before
        self.shown_by = shown_by

    def __contains__(self, name: str) -> bool:
        return next(self._places(name), None) is not None

    def __bool__(self) -> bool:
        return next(self._all(b""), None) is not None

    def count(self, name: str) -> int:
        """Returns how often the name occurs."""
        return sum(1 for _ in self._places(name))

    def starting(self, start: str) -> list[str]:
        """Returns the names that begin with `start`, each once, sorted."""
        return sorted(set(self._all(start.encode())))

    def having(self, part: str) -> list[str]:
        """Returns the names that contain `part`, each once, sorted."""
        return sorted(set(self._with(part.encode())))

    def fitting(self, pattern: str) -> list[str]:
        """Returns the names that fit a pattern with ``*`` and ``?``, each once, sorted."""
        if not set(pattern) & set("*?["):
            return [pattern] if pattern in self else []
        fits = re.compile(translate(pattern)).match
        start = re.match(r"[^*?\[]*", pattern)
        if start and start[0]:
            found = self._all(start[0].encode())
        else:
            found = self._with(max(re.split(r"[*?]|\[.*?\]", pattern), key=len).encode())
        return sorted({name for name in found if fits(name)})

    def near(self, name: str, start: str = "") -> list[str]:
        """Returns the names that are closest to a wrong one, best first; with `start`, only such names.

        Names that have a part in common with the wrong one are compared with it, rare parts first.
        """
        wanted = _pairs(start + name)
        shared: dict[str, float] = {}
        best: list[str] = []
        for compared in [set(self._all(start.encode()))] if start else self._similar(name):
            for other in compared - shared.keys() - {start + name}:
                pairs = _pairs(other)
                shared[other] = 2 * len(wanted & pairs) / (len(wanted) + len(pairs))
            best = sorted(shared, key=lambda other: (-shared[other], other))[:_MOST_CHECKED]
            if is_close(start + name, best):
                break
        if not get_close_matches(start + name, best, n=1, cutoff=_SIMILAR):
            return []
        return [other.removeprefix(start) for other in best if other in self]

    def closest(self, name: str, start: str = "") -> str:
        """Returns a sentence with the closest names, for an error's `fix`."""
        return tell_closest(name, self.near(name, start), self.shown_by)

    def _similar(self, name: str) -> Iterator[set[str]]:
        """Yields growing sets of names: first those with a word of `name`, then those with a part of it."""
        words = {word.encode() for word in re.split(r"[_.]", name) if len(word) > 2}
        found: set[str] = set()
        start = self._before + name.encode()
        threes = _parts(name, 3) | {start[:3]} if len(name) <= _SHORT else set()
        for pieces in (words | {start[:5]}, _parts(name, 4), threes):
            counts = {piece: self._text.count(piece) for piece in pieces}
            rare = sorted((p for p in counts if counts[p]), key=lambda p: counts[p])
            for piece in rare:
                if found and counts[piece] + len(found) > _MOST_COMPARED:
                    break
                found.update(islice(self._with(piece), _MOST_COMPARED))
            yield found

    def _with(self, piece: bytes) -> Iterator[str]:
        """Yields the names that contain `piece`, or begin with it if it begins with the byte `before`."""
        text, before, at = self._text, self._before, -1
        while (at := text.find(piece, at + 1)) >= 0:
            begin = at + 1 if piece.startswith(before) else text.rfind(before, 0, at) + 1
            end = end_of_name(text, begin)
            if end > at and self._is_one(begin, end):
                yield text[begin:end].decode(errors="replace")

    def _all(self, start: bytes) -> Iterator[str]:
        return self._with(self._before + start)

    def _places(self, name: str) -> Iterator[int]:
        """Yields each offset at which the name begins."""
        text, wanted, at = self._text, self._before + name.encode(), -1
        while (at := text.find(wanted, at + 1)) >= 0:
            end = at + len(wanted)
            if end_of_name(text, at + 1) == end and self._is_one(at + 1, end):
                yield at + 1

    def _is_one(self, begin: int, end: int) -> bool:
        """Returns whether the text there is a name of the wanted kind."""
        return begin < end


def end_of_name(text: bytes, begin: int) -> int:
    """Returns the offset of the end of the name at `begin`."""
    found = _NAME.match(text, begin)
    return found.end() if found else begin


def _parts(name: str, length: int) -> set[bytes]:
    return {name[i : i + length].encode() for i in range(max(len(name) - length + 1, 0))}


def _pairs(name: str) -> set[str]:
    """Returns the pairs of adjacent letters of a name."""
    text = f"^{name.lower()}$"
    return {text[i : i + 2] for i in range(len(text) - 1)}


def is_close(name: str, near: Iterable[str]) -> bool:
    """Returns whether the name is close to one of `near`, so that it may be that name misspelt."""
    return bool(get_close_matches(name, list(near), n=1, cutoff=_CLOSE))


def tell_closest(name: str, near: Iterable[str], shown_by: str = "") -> str:
    """Returns a sentence with the names of `near` that are close enough; `shown_by` prints all names."""
    names = sorted(set(near))
    if get_close_matches(name, names, n=1, cutoff=_SIMILAR):
        return closest(name, names)
    return "no name comes close" + (f"; {shown_by} shows all" if shown_by else "")
