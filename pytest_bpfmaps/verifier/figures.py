"""Reads the figures that the verifier writes at the end of its log, on the log level ``BPF_LOG_STATS``.

Source: ``print_verification_stats`` in kernel/bpf/verifier.c. Linux 5.2 wrote these lines first (commit
06ee7115b0d1). veristat reads the same lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

INSTRUCTIONS_LIMIT, STACK_LIMIT, JUMPS_LIMIT = 1_000_000, 512, 8192
"""The verifier's limits: instructions that it walks, bytes of stack, and branches that wait for it.

Source: ``BPF_COMPLEXITY_LIMIT_INSNS`` (Linux 5.2, for users with ``CAP_BPF``), ``MAX_BPF_STACK``,
``BPF_COMPLEXITY_LIMIT_JMP_SEQ``.
"""

_PROCESSED = re.compile(  # follows a complaint without a newline, at times
    r"processed (\d+) insns \(limit \d+\) max_states_per_insn (\d+) total_states (\d+) peak_states (\d+)"
    r"(?: mark_read (\d+))?"
)
_TIME = re.compile(r"verification time (\d+) usec$", re.MULTILINE)
_DEPTHS = re.compile(r"stack depth (\d+(?:\+\d+)*)(?: max (\d+))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Figures:
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
    processed = _last(_PROCESSED, "processed ", log)
    time, depths = _last(_TIME, "verification time ", log), _last(_DEPTHS, "stack depth ", log)
    counts = (
        [int(text) if text is not None else None for text in processed.groups()] if processed else [None] * 5
    )
    instructions, most, total, peak, mark_read = counts
    return Figures(
        instructions,
        total,
        peak,
        most,
        mark_read,
        int(time[1]) if time else None,
        tuple(map(int, depths[1].split("+"))) if depths else None,
        int(depths[2]) if depths and depths[2] else None,
    )


def _last(pattern: re.Pattern[str], start: str, log: str) -> re.Match[str] | None:
    """Returns the last match of a pattern whose matches begin with the text `start`."""
    at = len(log)
    while (at := log.rfind(start, 0, at)) >= 0:
        if found := pattern.match(log, at):
            return found
    return None
