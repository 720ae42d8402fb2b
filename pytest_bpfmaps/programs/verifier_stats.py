"""What the verifier reported about a program: figures of the load itself, and what a second load shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pytest_bpfmaps.verifier.walk import LineCost, LoopCost, Walk

MOST_LINES = 10


@dataclass(frozen=True)
class VerifierStats:
    """What the verifier reported about a program that it accepted. What the kernel does not tell is None.

    The load itself gives these; they cost nothing more. The kernel writes most of them into the log of the
    level ``BPF_LOG_STATS`` (Linux 5.2):

    - `instructions`: how many it processed, an instruction each time that it came there. Its limit is
      1,000,000.
    - `total_states`, `peak_states`: how many states of registers and stack it stored, and how many at a time.
      `max_states_per_insn`: the most for one instruction. `mark_read`: its longest walk to mark what is read.
    - `time_us`: the time of the verification, in microseconds. It differs from load to load.
    - `stack_depths`: bytes of stack, by the name of the function. The program is the first. `stack_together`:
      the most that functions that call each other need together, by the kernel's own sum (None before
      Linux 7.2, which is the first that was seen to tell it).
    - `jited_size`, `translated_size`: bytes of machine code, and of the program that the kernel made of this
      one. None where the JIT is off, and for users who may not see them (without ``CAP_BPF`` or
      ``CAP_SYS_ADMIN``). Source: ``struct bpf_prog_info`` (Linux 4.13).
    - `log`: the log of the load.

    `lines`, `loops`, `walk` and `whole_log` need a second load of the program alone. It happens when one of
    them is read first. They raise `LoadError` when the kernel refuses that, and `ClosedError` when the object
    is closed by then.
    """

    instructions: int | None
    log: str
    total_states: int | None = None
    peak_states: int | None = None
    max_states_per_insn: int | None = None
    mark_read: int | None = None
    time_us: int | None = None
    stack_depths: Mapping[str, int] | None = None
    stack_together: int | None = None
    jited_size: int | None = None
    translated_size: int | None = None
    again: Callable[[], tuple[str, Walk]] | None = field(default=None, repr=False, compare=False)

    @property
    def walk(self) -> Walk:
        """All lines and loops, and how many instructions the log of each step shows.

        These are fewer than `instructions` where that log is longer than the kernel or 128 MiB allow.
        """
        return self.again()[1] if self.again else Walk(0)

    @property
    def lines(self) -> tuple[LineCost, ...]:
        """The ten C lines that cost most: how many instructions of each the verifier processed."""
        return self.walk.lines[:MOST_LINES]

    @property
    def loops(self) -> tuple[LoopCost, ...]:
        """The loops that it walked, and how often it came to the head of each. An outer loop comes first."""
        return self.walk.loops

    @property
    def whole_log(self) -> str:
        """The log of each step (``BPF_LOG_LEVEL2``). It may have many megabytes."""
        return self.again()[0] if self.again else self.log
