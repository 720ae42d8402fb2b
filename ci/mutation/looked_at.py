"""Changes that no test can tell from the original, each with the reason: ``looked-at.txt``."""

from __future__ import annotations

import difflib
from pathlib import Path

LIST = Path(__file__).with_name("looked-at.txt")

Change = tuple[str, tuple[str, ...]]
"""A file below ``pytest_bpfmaps``, and the lines of the difference, without indentation."""


def looked_at(path: Path = LIST) -> dict[Change, str]:
    """Returns the reason of each change in the list. Raises `ValueError` for an incomplete entry."""
    found = {}
    for entry in path.read_text().split("\n\n"):
        lines = [line for line in entry.strip().split("\n") if not line.startswith("#")]
        if lines == [""] or not lines:
            continue
        change = tuple(line for line in lines[1:] if line[:2] in ("- ", "+ "))
        reason = " ".join(line for line in lines[1:] if line[:2] not in ("- ", "+ "))
        if not reason or {line[0] for line in change} != {"-", "+"}:
            raise ValueError(f"the entry for {lines[0]} needs '- ' and '+ ' lines, and a reason:\n{entry}")
        found[lines[0], change] = reason
    return found


def change(path: str, before: str, after: str) -> Change:
    """Returns the key of a change in the list, from both texts of a file."""
    lines = list(difflib.unified_diff(before.split("\n"), after.split("\n"), lineterm="", n=0))[2:]
    own = tuple(f"{line[0]} {line[1:].strip()}" for line in lines if line[0] in "+-")
    return str(Path(path).relative_to("pytest_bpfmaps")), own


def outdated(changes: dict[Change, str]) -> list[str]:
    """Returns the entries whose original lines are no longer in the file."""
    gone = []
    for path, lines in changes:
        file = Path("pytest_bpfmaps", path)
        here = {line.strip() for line in file.read_text().split("\n")} if file.exists() else set()
        gone += [f"{path}: {line}" for line in lines if line[0] == "-" and line[2:] not in here]
    return gone
