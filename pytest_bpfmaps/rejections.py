"""Programs that the verifier must reject, and what it must say: ``bpf.rejects``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ExpectationError, VerifierError
from .second_look import log_of_accepted
from .verifier.messages import Mismatch, by_regex, mismatch

if TYPE_CHECKING:
    from .harness import Bpf, Source
    from .objects import OpenedObject

Pattern = str | re.Pattern[str]
_OF_OPEN = ("code", "cflags", "defines", "pin_root", "btf")
_TAIL = 20  # lines


def expect_rejection(
    bpf: Bpf, source: Source | None, patterns: Sequence[Any], options: Mapping[str, Any]
) -> VerifierError:
    """Loads an object that the verifier must reject with a log that has `patterns` in that order.

    With ``code=`` among the `options` (those of ``bpf.load``) `source` is the first pattern. Raises
    `ExpectationError` when the programs are accepted or a pattern is missing, and what ``bpf.load`` raises.
    """
    if source is not None and options.get("code") is not None:
        source, patterns = None, (source, *patterns)
    wanted = [by_regex(p) for p in patterns]
    error = _load(_open(bpf, source, options))
    if error is None:
        opened = _open(bpf, source, options)
        names = [p.name for p in opened.programs if p.autoload]
        raise ExpectationError(
            "the verifier accepted",
            on=opened.name,
            why="it was expected to reject it",
            fix="make the program break the rule that this test is about, or expect that it loads",
            details="\n".join(tail(log_of_accepted(opened, name)) for name in names),
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


def _open(bpf: Bpf, source: Source | None, options: Mapping[str, Any]) -> OpenedObject:
    opening = {n: v for n, v in options.items() if n in _OF_OPEN}
    configuring = {n: v for n, v in options.items() if n not in _OF_OPEN}
    return bpf.open(source, **opening).configure(**configuring)


def _load(opened: OpenedObject) -> VerifierError | None:
    try:
        opened.load().close()
    except VerifierError as error:
        return error
    return None
