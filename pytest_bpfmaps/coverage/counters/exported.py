"""Reads what ``llvm-cov export`` says: JSON for branches, functions and regions, lcov's format for lines.

https://llvm.org/docs/CommandGuide/llvm-cov.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pytest_bpfmaps.coverage.data import Branch, FileCoverage, Function, Region

_CODE = 0  # the kind of a region that is neither skipped, nor a gap, nor a macro's


def read_lines(lcov: bytes) -> Iterator[tuple[str, int, int]]:
    """Gives file, line and count."""
    path = ""
    for line in lcov.decode(errors="surrogateescape").splitlines():
        if line.startswith("SF:"):
            path = line[3:]
        elif line.startswith("DA:"):
            number, count = line[3:].split(",")[:2]
            yield path, int(number), int(count)


def read_export(lcov: bytes, text: bytes) -> dict[str, FileCoverage]:
    """Returns the counts of an object, by file."""
    files: dict[str, FileCoverage] = {}
    for path, line, count in read_lines(lcov):
        files.setdefault(path, FileCoverage()).lines[line] = count
    data: dict[str, Any] = json.loads(text)["data"][0]
    for file in data["files"]:
        found = files.setdefault(file["filename"], FileCoverage())
        for line, column, _, end, yes, no, *_ in file.get("branches", ()):
            for outcome, count in (("true", yes), ("false", no)):
                _count(found.branches, Branch(line, f"{column}-{end}", outcome), count)
    for function in data["functions"]:
        paths = function["filenames"]
        name = function["name"].rpartition(":")[2].rpartition(";")[2]
        first = function["regions"][0]
        home = files.setdefault(paths[first[5]], FileCoverage())
        _count(home.functions, Function(name, first[0]), function["count"])
        for *place, count, file_id, _, kind in function["regions"]:
            if kind == _CODE:
                _count(files.setdefault(paths[file_id], FileCoverage()).regions, Region(*place), count)
    return files


def _count(counts: dict[Any, int], key: Any, count: int) -> None:
    counts[key] = counts.get(key, 0) + max(count, 0)
