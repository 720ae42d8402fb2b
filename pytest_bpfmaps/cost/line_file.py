"""Reads and writes the C lines of recorded programs: the file beside a cost file.

Below a line with object, program, variant and kernels there is one line for each C line: the instructions
on each kernel, then file, function and text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from pytest_bpfmaps.cost.cost_file import PLAIN, Source, name_of, write_text
from pytest_bpfmaps.cost.costs import NO_VARIANT, Costs, Key, in_order
from pytest_bpfmaps.cost.line_growth import Place, fitting, together
from pytest_bpfmaps.verifier.walk import LineCost

VERSION = 1
HEAD = "# pytest-bpfmaps cost lines"
_NOTE = "# object program variant kernels, then C lines: instructions on each kernel, file, function, text"
_NONE = "-"

Lines = dict[Key, Sequence[LineCost]]


def path_of(costs: Path) -> Path:
    """Returns the path of the file beside a cost file."""
    return costs.with_name(f"{costs.name}.lines")


def read_lines(costs: Path) -> Lines:
    """Returns the lines that belong to a cost file; none if their file is absent. Raises `CostFileError`."""
    path = path_of(costs)
    return parse_lines(costs, Source(path, costs).read()) if path.exists() else {}


def parse_lines(costs: Path, text: str) -> Lines:
    """Returns the lines that a text has. Raises `CostFileError`."""
    source, rows = Source(path_of(costs), costs), text.split("\n")
    keys: list[Key] = []
    lines: dict[Key, list[LineCost]] = {}
    source.check_head(rows, HEAD, VERSION)
    for number, row in enumerate(rows[1:], 2):
        if not row or row.startswith("#"):
            continue
        try:
            if row.startswith(" "):
                for key, line in _parse(keys, row):
                    lines[key].append(line)
            else:
                keys = _keys(row)
                if any(key in lines for key in keys):
                    raise ValueError("it has the same program and kernel as another line")
                lines |= {key: [] for key in keys}
        except ValueError as e:
            raise source.damaged(number, e) from e
    return {key: tuple(each) for key, each in lines.items()}


def _keys(row: str) -> list[Key]:
    words = row.split(" ")
    if len(words) < 4 or "" in words:
        raise ValueError("it has too few words")
    name, program, variant, *kernels = map(name_of, words)
    return [Key(name, program, variant, kernel) for kernel in kernels]


def _parse(keys: list[Key], row: str) -> Iterator[tuple[Key, LineCost]]:
    words = row[1:].split(" ", len(keys) + 2)
    if not keys or len(words) != len(keys) + 3:
        raise ValueError("it has too few words")
    *counts, file, function, text = words
    for key, count in zip(keys, counts, strict=True):
        if count != _NONE:
            yield key, LineCost(_name(file), 0, "" if text == _NONE else text, int(count), _name(function))


def _name(word: str) -> str:
    return "" if word == _NONE else name_of(word)


def text_of_lines(lines: Mapping[Key, Sequence[LineCost]]) -> str:
    """Returns the text of a file. The same lines always give the same text."""
    rows = [f"{HEAD} {VERSION}", _NOTE]
    programs: dict[tuple[str, ...], list[Key]] = {}
    for key in in_order(lines):
        programs.setdefault(key[:3], []).append(key)
    for program, keys in programs.items():
        rows.append(" ".join(_word(part) for part in (*program, *(key.kernel for key in keys))))
        columns = [together(lines[key]) for key in keys]
        for place in sorted({place for column in columns for place in column}):
            rows.append(_row(place, [column.get(place) for column in columns]))
    return "\n".join(rows) + "\n"


def _row(place: Place, costs: list[LineCost | None]) -> str:
    counts = [_NONE if cost is None else str(cost.instructions) for cost in costs]
    return " ".join(["", *counts, _word(place.file), _word(place.function), place.text or _NONE])


def _word(name: str) -> str:
    if name in ("", NO_VARIANT):
        return name or _NONE
    return quote(name, safe=PLAIN, errors="surrogateescape")


def write_lines(costs: Path, lines: Mapping[Key, Sequence[LineCost]]) -> bool:
    """Writes the file beside a cost file, whole or not at all. Returns whether anything changed.

    Raises `CostFileError`. A file that would have no line is not made.
    """
    path = path_of(costs)
    return bool(lines or path.exists()) and write_text(path, text_of_lines(lines))


def merged_lines(old: Lines, costs: Costs) -> Lines:
    """Returns the lines of costs: their own, else the old ones where these fit."""
    found = {
        key: fitting({key: cost.lines}, key, cost) or fitting(old, key, cost) for key, cost in costs.items()
    }
    return {key: lines for key, lines in found.items() if lines}
