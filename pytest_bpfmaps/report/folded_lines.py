"""Shows what many maps or programs of a failing test have in common in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SINGLE = 5  # quiet ones that have a line each
_NAMED = 20  # names in the line


def folded(lines: Mapping[Any, Sequence[str]], quiet: Sequence[Any], what: str) -> Iterator[str]:
    """Gives the lines of each map or program; many `quiet` ones share the last line.

    `what` says what they have in common, after their number: ``maps of x.bpf.c are empty``.
    """
    together = quiet if len(quiet) > _SINGLE else ()
    hidden = {id(each) for each in together}
    for each, its in lines.items():
        if id(each) not in hidden:
            yield from its
    if together:
        names = ", ".join(each.name for each in together[:_NAMED])
        rest = ", …" if len(together) > _NAMED else ""
        yield f"{len(together)} more {what}: {names}{rest}"
