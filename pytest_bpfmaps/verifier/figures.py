"""Reads the figures that the verifier writes at the end of its log, on the log level ``BPF_LOG_STATS``.

Source: ``print_verification_stats`` in kernel/bpf/verifier.c. Linux 5.2 wrote these lines first (commit
06ee7115b0d1). veristat reads the same lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

INSTRUCTIONS_LIMIT, STACK_LIMIT, JUMPS_LIMIT = 1_000_000, 512, 8192
"""The verifier's limits: instructions that it walks, bytes of stack, and branches that wait for it.

Source: ``BPF_COMPLEXITY_LIMIT_INSNS`` (Linux 5.2, for users with ``CAP_BPF``), ``MAX_BPF_STACK``,
``BPF_COMPLEXITY_LIMIT_JMP_SEQ``.
"""

_PROCESSED_TEXT = (
    r"processed (\d+) insns \(limit \d+\) max_states_per_insn (\d+) total_states (\d+) peak_states (\d+)"
    r"(?: mark_read (\d+))?"
)
_TIME_TEXT = r"verification time (\d+) usec$"
_DEPTHS_TEXT = r"stack depth (\d+(?:\+\d+)*)(?: max (\d+))?$"
_PROCESSED = re.compile(_PROCESSED_TEXT)  # follows a complaint without a newline, at times
_TIME, _DEPTHS = re.compile(_TIME_TEXT, re.MULTILINE), re.compile(_DEPTHS_TEXT, re.MULTILINE)
_ALL = re.compile(f"{_TIME_TEXT}\n{_DEPTHS_TEXT}\n{_PROCESSED_TEXT}\n?", re.MULTILINE)


class Figures(NamedTuple):
    """What the verifier tells of a program. What the log does not have is None.

    - `instructions` is how many instructions it walked. An instruction counts each time.
    - `total_states` is how many states of registers and stack it has stored, `peak_states` how many at a
      time. `max_states_per_insn` is the most that one instruction had, and `mark_read` the longest walk that
      marked what is read.
    - `time_us` is the time that it took, in microseconds.
    - `stack_depths` has the stack of each function, in bytes, in the order of their instructions.
    - `stack_together` is the most that functions that call each other need together, in bytes, as far as the
      kernel tells it. Linux 7.2 is the first that was seen to tell it.
    """

    instructions: int | None = None
    total_states: int | None = None
    peak_states: int | None = None
    max_states_per_insn: int | None = None
    mark_read: int | None = None
    time_us: int | None = None
    stack_depths: tuple[int, ...] | None = None
    stack_together: int | None = None


def read_figures(log: str) -> Figures:
    """Returns the figures of a log. Where a log has several, the last count, which libbpf's retry wrote."""
    if found := _ALL.fullmatch(log):  # the log of an accepted program, which each load reads
        time, depths, together, *counts = found.groups()
    else:
        time, depths, together, *counts = (
            *_last(_TIME, "verification time ", log),
            *_last(_DEPTHS, "stack depth ", log),
            *_last(_PROCESSED, "processed ", log),
        )
    instructions, most, total, peak, mark_read, time_us, stack_together = (
        None if text is None else int(text) for text in (*counts, time, together)
    )
    stack_depths = tuple(map(int, depths.split("+"))) if depths else None
    return Figures(instructions, total, peak, most, mark_read, time_us, stack_depths, stack_together)


def _last(pattern: re.Pattern[str], start: str, log: str) -> Sequence[str | None]:
    """Returns the groups of the last match of a pattern whose matches begin with the text `start`."""
    at = len(log)
    while (at := log.rfind(start, 0, at)) >= 0:
        if found := pattern.match(log, at):
            return found.groups()
    return [None] * pattern.groups
