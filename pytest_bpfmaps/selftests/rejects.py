"""Checks that the verifier rejects programs, and what it says: ``bpf.rejects``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pytest_bpfmaps.errors import ExpectationError, VerifierError
from pytest_bpfmaps.objects import OpenedObject
from pytest_bpfmaps.objects.diagnosis.full_verifier_log import log_of_accepted
from pytest_bpfmaps.verifier.expected_messages import Mismatch, by_regex, mismatch

Pattern = str | re.Pattern[str]
_TAIL = 20  # lines of a log that a message shows


def expect_rejection(
    open_configured: Callable[[], OpenedObject], patterns: Sequence[Pattern]
) -> VerifierError:
    """Loads an object that the verifier must reject. Its log must have `patterns` in that order.

    `open_configured` opens the object. It is called again for the log when the verifier accepts the programs.
    Raises `ExpectationError` when they are accepted or a pattern has no match, and what ``bpf.load`` raises.
    """
    wanted = [by_regex(p) for p in patterns]
    error = _load(open_configured())
    if error is None:
        opened = open_configured()
        names = [p.name for p in opened.programs if p.autoload]
        raise ExpectationError(
            "the verifier accepted",
            on=opened.name,
            why="this test expects that it rejects this object",
            fix="make the program break the rule that this test is about, or expect that it loads",
            details="\n".join(tail(log_of_accepted(opened.attempt, name)) for name in names),
        )
    wrong = mismatch(error.log, wanted)
    if wrong is not None:
        raise unlike(wrong, error.on or "", error.log) from error
    return error


def unlike(wrong: Mismatch, on: str, log: str, of: str = "verifier's log") -> ExpectationError:
    """Returns the error for a text that is not as expected, as a rule the verifier's log."""
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
    """Returns the last lines of a log, for a message."""
    lines = log.rstrip("\n").splitlines()
    cut = ["…"] if len(lines) > _TAIL else []
    return "\n".join(f"  {line}" for line in cut + lines[-_TAIL:])


def _load(opened: OpenedObject) -> VerifierError | None:
    try:
        opened.load().close()
    except VerifierError as error:
        return error
    return None
