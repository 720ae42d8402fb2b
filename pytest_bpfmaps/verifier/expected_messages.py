"""Finds expected messages in a verifier's log, in order.

The rules are those of the kernel's own tests (tools/testing/selftests/bpf/test_loader.c). Each message is
looked for after the match of the message before it. A message that must not occur is looked for between the
matches of its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_CLASSES = {  # POSIX character classes, inside brackets
    "[:digit:]": "0-9",
    "[:xdigit:]": "0-9a-fA-F",
    "[:alpha:]": "a-zA-Z",
    "[:alnum:]": "a-zA-Z0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:space:]": r"\s",
    "[:blank:]": r" \t",
}


@dataclass(frozen=True, slots=True)
class Message:
    """An expected message: `text` as it was written, and the `pattern` to look for.

    `negative` means that it must not occur. `next_line` means that it must be on the line after the message
    before it.
    """

    text: str
    pattern: re.Pattern[str]
    negative: bool = False
    next_line: bool = False


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first of several messages that is not as expected.

    `problem` is ``missing``, ``unexpected`` or ``wrong line``. `after` is the message before it, which
    matched on the line `line` (counted from 1; 0 if there is none). `found` is the line where the message
    occurs in the wrong place (0 if nowhere).
    """

    message: Message
    problem: str
    after: Message | None = None
    line: int = 0
    found: int = 0

    def __str__(self) -> str:
        behind = f"after the match of {self.after.text!r} in line {self.line}" if self.after else ""
        if self.problem == "unexpected":
            return f"it is in line {self.found}, where it must not be"
        if self.problem == "wrong line":
            return f"it is in line {self.found}, not in the line {behind}"
        if self.found:
            return f"it is only in line {self.found}, not {behind}"
        return f"nothing matches it {behind}".rstrip()


def by_regex(pattern: str | re.Pattern[str]) -> Message:
    """Returns a message for a Python regular expression; ``^`` and ``$`` match at the ends of a line."""
    compiled = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
    return Message(compiled.pattern, compiled)


def by_text(text: str, *, negative: bool = False, next_line: bool = False) -> Message:
    """Returns a message from the form of the kernel's tests: text with ``{{POSIX regular expressions}}``.

    Raises `ValueError` for braces or expressions that are not complete.
    """
    parts = _BRACES.split(text)
    if any("{{" in plain for plain in parts[::2]):
        raise ValueError(f"{text!r} has '{{{{' without '}}}}'")
    source = "".join(_from_posix(p) if i % 2 else re.escape(p) for i, p in enumerate(parts))
    try:
        pattern = re.compile(source, re.MULTILINE)
    except re.error as e:
        raise ValueError(f"{text!r} has no valid regular expression: {e}") from e
    return Message(text, pattern, negative, next_line)


def _from_posix(expression: str) -> str:
    for name, members in _CLASSES.items():
        expression = expression.replace(name, members)
    return expression.replace("[^", "[^\\n")  # in the kernel's tests, no list matches the end of a line


def mismatch(log: str, messages: Sequence[Message]) -> Mismatch | None:
    """Returns the first message that `log` lacks, or has although it must not; None if there is none."""
    spans = _find_positive(log, messages)
    before: int | None = None
    for i, message in enumerate(messages):
        span = spans[i]
        if message.negative:
            start = spans[before][1] if before is not None else 0  # type: ignore[index]
            unwanted = message.pattern.search(log, start, _next_start(log, messages, spans, i))
            if unwanted:
                return Mismatch(message, "unexpected", found=_line(log, unwanted.start()))
            continue
        after = messages[before] if before is not None else None
        line = _line(log, spans[before][0]) if before is not None else 0  # type: ignore[index]
        if span is None:
            anywhere = message.pattern.search(log)
            return Mismatch(message, "missing", after, line, _line(log, anywhere.start()) if anywhere else 0)
        if message.next_line and after is not None and _line(log, span[0]) != line + 1:
            return Mismatch(message, "wrong line", after, line, _line(log, span[0]))
        before = i
    return None


def _find_positive(log: str, messages: Sequence[Message]) -> list[tuple[int, int] | None]:
    spans: list[tuple[int, int] | None] = []
    position = 0
    for message in messages:
        found = None if message.negative else message.pattern.search(log, position)
        spans.append(found.span() if found else None)
        position = found.end() if found else position
    return spans


def _next_start(
    log: str, messages: Sequence[Message], spans: Sequence[tuple[int, int] | None], index: int
) -> int:
    """Returns where the next wanted message begins: an unwanted message is looked for up to there."""
    following = next((i for i in range(index, len(messages)) if not messages[i].negative), None)
    if following is None:
        return len(log)
    span = spans[following]
    return span[0] if span else 0  # the mismatch then names the missing message


def _line(log: str, position: int) -> int:
    return log.count("\n", 0, position) + 1
