"""What the verifier's walk through a program cost: by C line, and by loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _CLine:
    file: str
    line: int
    text: str

    @property
    def place(self) -> str:
        """The file's name, the number of the line, and its text, as far as they are known."""
        parts = [Path(self.file).name, str(self.line or "")]
        return f"{':'.join(filter(None, parts))}: {self.text}" if any(parts) else self.text

    def _after(self, count: int) -> str:
        """Returns the count, and the line behind it."""
        return f"{count:7} {self.place}"


@dataclass(frozen=True, slots=True)
class LineCost(_CLine):
    """A C line, and how many instructions the verifier processed that come from it.

    `file` is a path as it was compiled, or a name without folders where only the kernel's log tells it, or
    empty. `line` is 0 where nothing tells it (a kernel before Linux 6.10, and an object whose functions can't
    be found in its file). `function` is the function whose instructions these are. For an inlined
    function, that is the function around it.
    """

    instructions: int
    function: str = ""

    def __str__(self) -> str:
        return self._after(self.instructions)


@dataclass(frozen=True, slots=True)
class LoopCost(_CLine):
    """A loop, and how often the verifier walked its head.

    `line` is the first line of the loop in the file of its function.
    """

    visits: int
    function: str = ""

    def __str__(self) -> str:
        return self._after(self.visits)


@dataclass(frozen=True, slots=True)
class Walk:
    """What a log of each step shows. `instructions` is how many steps it shows.

    These are all that the verifier processed, or fewer where the log was too long: kernels keep its end
    (Linux 6.4 and later) or its beginning.
    """

    instructions: int
    lines: tuple[LineCost, ...] = ()
    loops: tuple[LoopCost, ...] = ()
