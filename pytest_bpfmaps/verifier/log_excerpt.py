"""Makes the excerpt of a long verifier log that a report shows: its beginning, its end, and loops once."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FIRST, _LAST = 20, 40  # lines
_SEEN = 4000  # lines from each end in which loops are looked for
_LONGEST = 64  # lines of a loop
_STATE = re.compile(r"\s+;(?: .*)?$|^((?:from \d+ to )?\d+:) (?:R\d|frame).*$")


def excerpt(log: str) -> str:
    """Returns `log` if it is short, else its first 20 and last 40 lines, and how many were left out.

    Instructions that repeat are shown once.
    """
    lines = log.splitlines()
    if len(lines) <= _FIRST + _LAST:
        return log
    head = _folded(lines[:_SEEN])[:_FIRST]
    tail = _folded(lines[sum(count for _, count in head) :][-_SEEN:])[-_LAST:]
    left = len(lines) - sum(count for _, count in head + tail)
    gap = [f"… {left:,} lines left out, all in error.log, or with -vv …"] if left else []
    return "\n".join([*(text for text, _ in head), *gap, *(text for text, _ in tail)]) + "\n"


def _folded(lines: Sequence[str]) -> list[tuple[str, int]]:
    """Returns the lines to show, each with the number of lines that it replaces."""
    plain = [_STATE.sub(r"\1", line) for line in lines]
    shown: list[tuple[str, int]] = []
    at = 0
    while at < len(lines):
        size, times = _repeated(plain, at)
        shown += [(line, 1) for line in lines[at : at + size]]
        if times:
            what = f"the {size} lines above" if size > 1 else "the line above"
            shown.append((f"… {what}, {times:,} times more …", size * times))
        at += size * (1 + times)
    return shown


def _repeated(plain: Sequence[str], at: int) -> tuple[int, int]:
    """Returns how many lines from `at` on repeat directly after them, and how often; (1, 0) if none do."""
    for size in range(1, _LONGEST + 1):
        block = plain[at : at + size]
        times = 0
        while plain[at + size * (times + 1) : at + size * (times + 2)] == block:
            times += 1
        if times > 1:
            return size, times
    return 1, 0
