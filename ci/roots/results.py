"""What the runs found: kept between runs, and printed as a table."""

from __future__ import annotations

import json
import platform
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from root import Root, locked
from suites import SUITES, UBUNTU

_RELEASES = (*SUITES, *UBUNTU)

MARKS = ("<!-- printed by ci/hosts -->", "<!-- end of what ci/hosts printed -->")
_THINGS = ("Python", "libbpf", "clang", "QEMU", "glibc")
_VERSIONS = r"""
. /etc/os-release; echo "name: ${NAME%% *} ${VERSION_ID:-sid}"
echo "Python: $(.venv/bin/python -c 'import platform; print(platform.python_version())')"
.venv/bin/python -c '
import ctypes
version = ctypes.CDLL("libbpf.so.1").libbpf_version_string
version.restype = ctypes.c_char_p
print("libbpf:", version().decode())'
for v in 14 15 16 17 18 19 20 21 22 23; do if command -v clang-$v >/dev/null; then echo "clang: $v"; fi; done
echo "QEMU: $(qemu-system-$(uname -m) --version | head -n1)"
echo "glibc: $(ldd --version | head -n1)"
"""
_WORDS = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
_SUMMARY = re.compile(r"^=+ ((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*=+$", re.MULTILINE)


@dataclass
class Outcome:
    """One command in one root: exit status, seconds, tests by result, and where and why it failed."""

    status: int
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    stage: str = ""

    def __str__(self) -> str:
        tests = ", ".join(f"{n} {word}" for word in _WORDS if (n := self.counts.get(word)))
        if self.status == 0:
            return tests or "passed"
        parts = [f"**failed** (status {self.status})", tests, self.stage]
        return ": ".join(filter(None, parts))


@dataclass
class Result:
    """One root: the release or job that it is for, the versions in it, and what the commands did."""

    name: str
    date: str
    commit: str
    versions: dict[str, str]
    outcomes: dict[str, Outcome]


def outcome(status: int, seconds: float, text: str) -> Outcome:
    """Returns what a command's output says: pytest's last lines added up, and the last stage that began."""
    counts: Counter[str] = Counter()
    for match in _SUMMARY.finditer(text):
        for part in match[1].split(", "):
            number, word = part.split()
            counts[word.removesuffix("s") if word == "errors" else word] += int(number)
    if status == 0:
        return Outcome(0, seconds, dict(counts))
    stages = re.findall(r"^==> (.*)$", text, re.MULTILINE)
    if counts and stages and not stages[-1].startswith("pytest"):
        stages = []  # pytest ran after these: they are steps of ci/setup
    refusals = re.findall(r"^E: (.*)$", text, re.MULTILINE)  # apt's errors: the release itself is broken
    # A stage may list many files.
    why = [textwrap.shorten(stage, 100, placeholder=" …") for stage in stages[-1:]]
    why += [f"apt: {refusal}" for refusal in refusals[-1:]]
    return Outcome(status, seconds, dict(counts), "; ".join(why))


def versions(root: Root) -> dict[str, str]:
    """Returns the versions of what matters in a root that has been set up; clang may have several."""
    found: dict[str, list[str]] = {}
    for line in root.output(_VERSIONS).splitlines():
        name, _, value = line.partition(": ")
        found.setdefault(name, []).append(value)
    return {name: ", ".join(_short(name, value) for value in values) for name, values in found.items()}


def _short(name: str, value: str) -> str:
    if name in ("name", "clang"):
        return value
    numbers: list[str] = re.findall(r"\d+\.\d+", value)
    if not numbers:
        return "?"
    return numbers[-1] if name == "glibc" else numbers[0]


def table(results: Iterable[Result]) -> str:
    """Returns all results as a table in Markdown, and a line that says when, and on which kernel."""
    rows = sorted(results, key=lambda row: _place(row.name))
    commands = sorted({command for row in rows for command in row.outcomes})
    head = ["root", *_THINGS, *(f"`ci/{c}`" if c in ("demo", "test") else c for c in commands)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [_title(row), *(row.versions.get(thing, "?") for thing in _THINGS)]
        cells += [str(row.outcomes.get(command, "")) for command in commands]
        lines.append(f"| {' | '.join(cells)} |")
    dates = sorted({row.date for row in rows})
    span = dates[0] if dates[:1] == dates[-1:] else f"{dates[0]} to {dates[-1]}" if dates else "never"
    said = f"Printed by `ci/hosts` on {span}, Linux {platform.release()}."
    return "\n".join([*lines, "", said])


def _place(name: str) -> tuple[int, str]:
    """Returns where a root is in the table: releases from the oldest on, then jobs by name."""
    return (_RELEASES.index(name) if name in _RELEASES else len(_RELEASES), name)


def _title(row: Result) -> str:
    release = row.versions.get("name")
    if release is None or row.name in _RELEASES:
        return release or row.name
    return f"`{row.name}` on {release}"


def write_between_marks(file: Path, text: str) -> None:
    """Replaces what `file` has between the two marks. Raises ValueError when it lacks a mark."""
    before, first, rest = file.read_text().partition(MARKS[0])
    _, second, after = rest.partition(MARKS[1])
    if not first or not second:
        raise ValueError(f"{file} lacks the line {MARKS[0]} or {MARKS[1]}")
    file.write_text(f"{before}{first}\n{text}\n{second}{after}")


def load(file: Path) -> dict[str, Result]:
    """Returns the results of earlier runs, by root."""
    if not file.exists():
        return {}
    read = json.loads(file.read_text())
    return {
        name: Result(**{**r, "outcomes": {c: Outcome(**o) for c, o in r["outcomes"].items()}})
        for name, r in read.items()
    }


def save(file: Path, result: Result) -> None:
    """Adds a result to those of earlier runs. Outcomes of other commands on the same commit stay."""
    with locked(file.with_suffix(".lock"), wait=True):
        known = load(file)
        before = known.get(result.name)
        if before is not None and before.commit == result.commit:
            result.outcomes = {**before.outcomes, **result.outcomes}
        known[result.name] = result
        file.write_text(json.dumps({name: asdict(r) for name, r in known.items()}, indent=1))
