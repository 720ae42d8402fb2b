"""Lines that a source leaves out of its coverage: ``// bpfmaps: no cover``.

After a statement, the comment leaves out that line. On a line that opens a block, such as the first line of a
function, it leaves out the whole block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARK = re.compile(r"(//|/\*)\s*bpfmaps:\s*no cover\b")
_NO_CODE = re.compile(r"""//.*|/\*.*?(\*/|$)|"(\\.|[^"\\])*"|'(\\.|[^'\\])*'""")


def excluded_lines(text: Sequence[str]) -> set[int]:
    """Returns the numbers, from 1, of the lines that are left out."""
    found: set[int] = set()
    codes = _code_of(text)
    for at, line in enumerate(text):
        mark = _MARK.search(line)
        if not mark:
            continue
        found.add(at + 1)
        opened = _behind_closed(codes[at])
        if opened.count("{") > opened.count("}"):
            found |= _block(codes, at)
    return found


def _behind_closed(code: str) -> str:
    """Returns a line from its first opening brace on. In ``} else {`` the brace before it closes a block."""
    return code[code.find("{") :] if "{" in code else ""


def _block(codes: Sequence[str], start: int) -> set[int]:
    """Returns the lines from one that opens a block to the one that closes it."""
    depth = 0
    for at in range(start, len(codes)):
        code = _behind_closed(codes[at]) if at == start else codes[at]
        depth += code.count("{") - code.count("}")
        if depth <= 0:
            return set(range(start + 1, at + 2))
    return set(range(start + 1, len(codes) + 1))


def _code_of(text: Sequence[str]) -> list[str]:
    """Returns the lines without comments, strings, and characters."""
    codes, inside = [], False
    for line in text:
        code = line.partition("*/")[2] if inside else line
        if not inside or "*/" in line:
            inside = _opens_comment(code)
        codes.append(_NO_CODE.sub(lambda found: " " if found[0].startswith(("//", "/*")) else '""', code))
    return codes


def _opens_comment(line: str) -> bool:
    """Returns whether a comment that begins in the line does not end there."""
    last = None
    for found in _NO_CODE.finditer(line):
        last = found
    return last is not None and last[0].startswith("/*") and not last[0].endswith("*/")
