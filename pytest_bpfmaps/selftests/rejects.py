"""Programs that the verifier must reject, and what it must say: ``bpf.rejects``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pytest_bpfmaps.errors import ExpectationError, VerifierError
from pytest_bpfmaps.objects import OpenedObject
from pytest_bpfmaps.objects.diagnosis.full_verifier_log import log_of_accepted
from pytest_bpfmaps.verifier.expected_messages import Mismatch, by_regex, mismatch

Pattern = str | re.Pattern[str]
_TAIL = 20  # lines


def expect_rejection(
    open_configured: Callable[[], OpenedObject], patterns: Sequence[Pattern]
) -> VerifierError:
    """Loads an object that the verifier must reject with a log that has `patterns` in that order.

    `open_configured` opens the object, again to have the log where the verifier accepts it. Raises
    `ExpectationError` when the programs are accepted or a pattern is missing, and what ``bpf.load`` raises.
    """
    wanted = [by_regex(p) for p in patterns]
    error = _load(open_configured())
    if error is None:
        opened = open_configured()
        names = [p.name for p in opened.programs if p.autoload]
        raise ExpectationError(
            "the verifier accepted",
            on=opened.name,
            why="it was expected to reject it",
            fix="make the program break the rule that this test is about, or expect that it loads",
            details="\n".join(tail(log_of_accepted(opened.attempt, name)) for name in names),
        )
    wrong = mismatch(error.log, wanted)
    if wrong is not None:
        raise unlike(wrong, error.on or "", error.log) from error
    return error


def unlike(wrong: Mismatch, on: str, log: str, of: str = "verifier's log") -> ExpectationError:
    """The error for a text, the verifier's log as a rule, that is not as expected."""
    verb = "has" if wrong.problem == "unexpected" else "lacks"
    return ExpectationError(
        f"the {of} {verb} {wrong.message.text!r}",
        on=f"for {on}",
        why=str(wrong),
        fix="compare with the end of the log above; the whole log is a section of the report",
        details=tail(log),
        log=log,
    )


def tail(log: str) -> str:
    """The last lines of a log, for a message."""
    lines = log.rstrip("\n").splitlines()
    cut = ["…"] if len(lines) > _TAIL else []
    return "\n".join(f"  {line}" for line in cut + lines[-_TAIL:])


def _load(opened: OpenedObject) -> VerifierError | None:
    try:
        opened.load().close()
    except VerifierError as error:
        return error
    return None
