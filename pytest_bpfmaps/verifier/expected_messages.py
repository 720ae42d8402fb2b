"""Messages that are expected in a verifier's log, in order.

The rules are those of the kernel's own tests (tools/testing/selftests/bpf/test_loader.c): each message is
looked for behind the one before it; one that must not be there is looked for between its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_CLASSES = {  # of POSIX, inside brackets
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
    """`text` as it was written, `pattern` to look for.

    `negative`: it must not be there; `next_line`: it must be on the line behind the message before it.
    """

    text: str
    pattern: re.Pattern[str]
    negative: bool = False
    next_line: bool = False


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first of several messages that is not as expected.

    `problem` is ``missing``, ``unexpected`` or ``wrong line``; `after` the message before it, which matched
    on the line `line` (from 1; 0 when it is the first); `found` the line where it was seen in the wrong
    place (0: nowhere).
    """

    message: Message
    problem: str
    after: Message | None = None
    line: int = 0
    found: int = 0

    def __str__(self) -> str:
        behind = f"behind the match of {self.after.text!r} in line {self.line}" if self.after else ""
        if self.problem == "unexpected":
            return f"it stands in line {self.found}, where it must not"
        if self.problem == "wrong line":
            return f"it stands in line {self.found}, not in the line {behind}"
        if self.found:
            return f"it stands in line {self.found} only, not {behind}"
        return f"nothing matches it {behind}".rstrip()


def by_regex(pattern: str | re.Pattern[str]) -> Message:
    """A message from a Python regular expression; ``^`` and ``$`` are the ends of a line."""
    compiled = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
    return Message(compiled.pattern, compiled)


def by_text(text: str, *, negative: bool = False, next_line: bool = False) -> Message:
    """A message as the kernel's tests write it: plain text with ``{{POSIX regular expressions}}`` in it.

    Raises `ValueError` for braces or expressions that are not whole.
    """
    parts = _BRACES.split(text)
    if any("{{" in plain for plain in parts[::2]):
        raise ValueError(f"there is '{{{{' without '}}}}' in {text!r}")
    source = "".join(_from_posix(p) if i % 2 else re.escape(p) for i, p in enumerate(parts))
    try:
        pattern = re.compile(source, re.MULTILINE)
    except re.error as e:
        raise ValueError(f"{text!r} has no valid regular expression: {e}") from e
    return Message(text, pattern, negative, next_line)


def _from_posix(expression: str) -> str:
    for name, members in _CLASSES.items():
        expression = expression.replace(name, members)
    return expression.replace("[^", "[^\\n")  # there, no list matches the end of a line


def mismatch(log: str, messages: Sequence[Message]) -> Mismatch | None:
    """The first message that `log` does not have, or has against expectation; None when all is well."""
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
    """Where the next wanted message begins: the end of what an unwanted one is looked for in."""
    following = next((i for i in range(index, len(messages)) if not messages[i].negative), None)
    if following is None:
        return len(log)
    span = spans[following]
    return span[0] if span else 0  # that it is missing is said instead


def _line(log: str, position: int) -> int:
    return log.count("\n", 0, position) + 1
