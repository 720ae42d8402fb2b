"""Reads the combinations of conditions' values from what ``llvm-cov show -show-mcdc`` prints.

``llvm-cov export`` says which conditions decided, but not which combinations were seen. Only combinations can
be added up over kernels and runs. ``show`` needs the sources, which may have changed: it gets empty ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_FILE = re.compile(r"\|bpfmaps-file-(\d+)$")
_DECISION = re.compile(r"\|---> MC/DC Decision Region \((\d+:\d+)\) to \((\d+:\d+)\)$")
_CONDITION = re.compile(r"\|     Condition C\d+ --> \((\d+:\d+)\)$")
_VECTOR = re.compile(r"\|  \d+ \{ ([TFC, -]+?) *= ([TF]) +\}$")
_CONSTANT = re.compile(r"\|  C(\d+)-Pair: constant folded$")


@dataclass
class Shown:
    """A decision: where it begins and ends, where its conditions begin, and what was seen.

    Vectors are as in `data.Decision`. The place of a condition that clang knows to be constant ends in ``C``.
    """

    begin: str
    end: str
    conditions: list[str] = field(default_factory=list)
    vectors: list[str] = field(default_factory=list)


def write_blank(folder: Path, lengths: Mapping[str, int]) -> None:
    """Writes for each absolute path an empty file of that many lines, at the same path below `folder`."""
    for number, (path, lines) in enumerate(lengths.items()):
        made = Path(f"{folder}{path}")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(f"bpfmaps-file-{number}\n" + "\n" * lines)


def read_shown(text: str, paths: list[str]) -> dict[str, list[Shown]]:
    """Returns the decisions of each file; `paths` are those of `write_blank`, in order."""
    found: dict[str, list[Shown]] = {}
    here: list[Shown] = []
    for line in map(str.rstrip, text.splitlines()):
        if match := _FILE.search(line):
            here = found.setdefault(paths[int(match[1])], [])
        elif match := _DECISION.search(line):
            here.append(Shown(match[1], match[2]))
        elif match := _CONDITION.search(line):
            here[-1].conditions.append(match[1])
        elif match := _VECTOR.search(line):
            here[-1].vectors.append(match[1].replace(",", "").replace(" ", "") + "=" + match[2])
        elif match := _CONSTANT.search(line):
            here[-1].conditions[int(match[1]) - 1] += "C"
    return found
