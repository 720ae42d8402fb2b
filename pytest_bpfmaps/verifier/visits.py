"""Counts how often the verifier walked each instruction, by a log of the level ``BPF_LOG_LEVEL2``.

On that level the log has a line for each instruction that the verifier walks, ``12: (61) r0 = …``, or
``12: safe`` where it knows the state already. Both count as processed. (Level 1 deletes the lines of a
branch when the branch is done.)
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

_LISTING = re.compile(r"^(?:subprog#\d+|Live regs before insn:)", re.MULTILINE)  # before the walk; Linux 7.2
_BEGIN = re.compile(r"^\d+: (?:R\d|frame\d)", re.MULTILINE)  # the first state of a walk
_VISIT = re.compile(
    r"^(?:(\d+): \([0-9a-f]{2}\) |(?:from \d+ to (\d+)(?: \([^)]*\))?|(\d+)): safe$"
    r"|; (.*?)(?: @ ([^@\n]+):(\d+))?$)",
    re.MULTILINE,
)


@dataclass
class Visits:
    """How often each instruction was walked, by its number, and the C text that the log shows for it."""

    counts: Counter[int] = field(default_factory=Counter)
    texts: dict[int, tuple[str, str, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many instructions the log shows. A log that is cut off shows fewer than were processed."""
        return self.counts.total()


def read_visits(log: str) -> Visits:
    """Returns what a log shows. A text has the line, its file without folders, and its number if known."""
    found = Visits()
    begin = _BEGIN.search(log) if _LISTING.search(log) else None
    text = ("", "", 0)
    for match in _VISIT.finditer(log, begin.start() if begin else 0):
        walked, safe_from, safe, source, file, line = match.groups()
        number = walked or safe_from or safe
        if number is None:
            text = (source.strip(), file or "", int(line or 0))
            continue
        found.counts[int(number)] += 1
        if walked is not None:
            found.texts[int(number)] = text
    return found
