"""Reads what ``llvm-cov export`` says: JSON for branches, functions and regions, lcov's format for lines.

https://llvm.org/docs/CommandGuide/llvm-cov.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_bpfmaps.coverage.counters.shown import Shown
from pytest_bpfmaps.coverage.data import Branch, Decision, FileCoverage, Function, Region
from pytest_bpfmaps.coverage.decisions import decided
from pytest_bpfmaps.errors import UnsupportedError

_CODE = 0  # the kind of a region that is neither skipped, nor a gap, nor a macro's


def read_lines(lcov: bytes) -> Iterator[tuple[str, int, int]]:
    """Yields the path of a file, the number of a line, and its count."""
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


def last_lines(text: bytes) -> dict[str, int]:
    """Returns for each file of the JSON the last line of its decisions; 0 where it has none."""
    files = json.loads(text)["data"][0]["files"]
    return {
        file["filename"]: max((record[2] for record in file.get("mcdc_records", ())), default=0)
        for file in files
    }


def read_decisions(text: bytes, shown: Mapping[str, list[Shown]], name: str) -> dict[str, FileCoverage]:
    """Returns the decisions of an object, by file, with the combinations of values in `shown`.

    `shown` is what ``llvm-cov show`` said, `name` the name of the object. Raises `UnsupportedError` when the
    JSON contradicts `shown`.
    """
    data: dict[str, Any] = json.loads(text)["data"][0]
    bodies = [_body(function) for function in data["functions"]]
    files: dict[str, FileCoverage] = {}
    for file in data["files"]:
        path, records = file["filename"], file.get("mcdc_records", [])
        here = shown.get(path, [])
        if sorted(map(_told, records)) != sorted(map(_seen, here)):
            raise UnsupportedError(
                "cannot report MC/DC",
                on=path,
                why="'llvm-cov show' and 'llvm-cov export' do not say the same of its decisions",
                fix="leave out --bpf-cov-mcdc, and report this as a defect of pytest-bpfmaps",
            )
        uses: Counter[str] = Counter()
        for each in here:
            place = f"{each.begin}-{each.end}"
            line, column = map(int, each.begin.split(":"))
            uses[place] += 1
            inside = any(path == at and begin <= (line, column) <= end for at, begin, end in bodies)
            # A decision outside of all functions is in a macro: the text identifies one use of that macro.
            use = "" if inside else f"{uses[place]} in {name}"
            found = files.setdefault(path, FileCoverage()).decisions
            key = Decision(line, place, " ".join(each.conditions), use, "")
            _count(found, key, 0)
            for vector in each.vectors:
                _count(found, key._replace(vector=vector), 1)
    return files


def _body(function: Mapping[str, Any]) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """Returns the file of a function, and where it begins and ends."""
    line, column, end_line, end_column, _, file, *_ = function["regions"][0]
    return function["filenames"][file], (line, column), (end_line, end_column)


def _told(record: list[Any]) -> tuple[str, str, list[bool]]:
    line, column, end_line, end_column, *_, conditions = record
    return f"{line}:{column}", f"{end_line}:{end_column}", conditions


def _seen(shown: Shown) -> tuple[str, str, list[bool]]:
    verdicts = [decided(shown.vectors, number) for number, _ in enumerate(shown.conditions)]
    return shown.begin, shown.end, verdicts


def _count(counts: dict[Any, int], key: Any, count: int) -> None:
    counts[key] = counts.get(key, 0) + max(count, 0)
