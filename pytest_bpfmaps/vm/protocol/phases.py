"""The steps of a worker in a guest, and how long each may take.

The worker says what it begins (`rpc.Host.tell`), and the gateway counts the time. A worker that waits for
pytest's orders has no limit, because nobody waits for it. The gateway then asks the guest whether it is
alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """What a worker does. The values are what it sends."""

    ORDERS = "waits for orders"
    START = "starts pytest"
    COLLECTION = "collects"
    TEST = "runs"
    BETWEEN = "goes on to the next test"
    END = "ends its session"


IS_PREPARED = "is prepared"
"""The beginning of what a guest does while its state is made: it boots, imports and is saved."""

_NOUNS = {
    Phase.ORDERS: "guest",
    Phase.START: "start of pytest",
    Phase.COLLECTION: "collection",
    Phase.TEST: "test",
    Phase.BETWEEN: "step between tests",
    Phase.END: "end of the session",
}


_LONGEST = 1 << 16  # characters of the name of a test
_MOST = 7 * 86400.0  # seconds that a test may ask for


def printable(text: str) -> str:
    """Returns a guest's text without what would change a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def is_name(text: str) -> bool:
    """Returns whether a guest's text can be the name of a test that a report shows."""
    return len(text) <= _LONGEST and text.isprintable()


@dataclass(frozen=True)
class WorkerStep:
    """A worker is in `phase`, at a file or a test. It may take `more` seconds beyond the limit."""

    phase: Phase
    at: str = ""
    more: float = 0.0

    def __str__(self) -> str:
        return f"{self.phase} {printable(self.at)}".rstrip()

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> WorkerStep | None:
        """Returns the step that a worker's message tells; None when it tells none."""
        try:
            step = cls(Phase(message["phase"]), message["at"], float(message["more"]))
        except (LookupError, TypeError, ValueError, OverflowError):
            return None
        fits = isinstance(step.at, str) and len(step.at) <= _LONGEST and 0 <= step.more <= _MOST
        return step if fits else None

    def message(self) -> dict[str, Any]:
        """Returns the message that `read` reads."""
        return {"phase": self.phase.value, "at": self.at, "more": self.more}


class Countdown:
    """Counts the seconds in which a guest could have run.

    Seconds in which QEMU waited for a processor do not count; `waited` tells their sum. Seconds in which this
    process itself stood still do not count, too, because it was stopped or the machine slept. For that,
    `is_over` must be called every `LOOK` seconds.
    """

    LOOK = 1.0

    def __init__(self, waited: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._waited, self._clock = waited, clock
        self._left = 0.0
        self._looked = 0.0
        self._had_waited: float | None = None
        self._holds = 0

    def start(self, seconds: float) -> None:
        """Counts `seconds` down from now on."""
        self._left, self._looked, self._had_waited = seconds, self._clock(), None

    def hold(self) -> None:
        """Stops counting until `go_on` was called as often as this method."""
        self._holds += 1

    def go_on(self) -> None:
        """Counts again."""
        self._holds -= 1
        self._looked = self._clock()

    @property
    def pause(self) -> float:
        """Seconds until `is_over` must be called."""
        return self.LOOK if self._holds else max(min(self._left, self.LOOK), 0.0)

    def is_over(self) -> bool:
        """Looks at the clock, and returns whether the seconds are over."""
        now, waited = self._clock(), self._waited()
        passed = min(now - self._looked, 2 * self.LOOK)
        if self._had_waited is not None:
            passed -= waited - self._had_waited
        self._looked, self._had_waited = now, waited
        if not self._holds:
            self._left -= max(passed, 0.0)
        return self._left <= 0 and not self._holds


class Watch:
    """The step of a guest's worker, the last test that it began, and the time that is left.

    A step may take `limit` seconds.
    """

    def __init__(self, limit: float, countdown: Countdown) -> None:
        self.limit, self.countdown = limit, countdown
        self.step, self.last_test = WorkerStep(Phase.ORDERS), ""
        self.enter(self.step)

    def enter(self, step: WorkerStep) -> None:
        """Notes that the worker is at `step` now."""
        self.step = step
        if step.phase is Phase.TEST:
            self.last_test = step.at
        self.countdown.start(self.limit + step.more)

    def start_again(self) -> None:
        """Counts the same step from the beginning."""
        self.countdown.start(self.limit + self.step.more)

    @property
    def noun(self) -> str:
        """The step as a noun, with its object: ``collection of test_x.py``."""
        step = self.step
        return (
            f"{_NOUNS[step.phase]} of {printable(step.at)}"
            if step.phase is Phase.COLLECTION and step.at
            else _NOUNS[step.phase]
        )

    @property
    def why(self) -> str:
        """A sentence that says that the time is over, and after which test."""
        seconds = f"{self.limit + self.step.more:g} s"
        if self.step.phase is Phase.TEST:
            return f"it ran for more than {seconds}"
        after = f"the last test was {printable(self.last_test)}" if self.last_test else "no test had begun"
        if self.step.phase is Phase.ORDERS:
            return f"it did not answer while it waited for orders; {after}"
        return f"it took more than {seconds}; {after}"
