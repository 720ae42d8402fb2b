"""Reads and writes cost files: text, sorted, with one line for each program, variant and kernel.

It reads the CSV of veristat, too.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from pytest_bpfmaps.cost.costs import (
    ACCEPTED,
    ANY_KERNEL,
    NO_VARIANT,
    REFUSED,
    Cost,
    Costs,
    Key,
    add,
    in_order,
)
from pytest_bpfmaps.errors import BpfError

VERSION = 1
HEAD = "# pytest-bpfmaps cost"
_NOTE = "# object program variant kernel verdict, then figures of the verifier; sizes and stack in bytes"
_CONFLICT = re.compile(r"<{7} |={7}$|>{7} |\|{7} ")
_FIGURES = ("insns", "states", "peak", "max_states_per_insn", "jited", "translated")
PLAIN = "/._+-:,[]@()"  # characters of names that are written as they are; others are quoted
_CSV_FIGURES = {
    "insns": "total_insns",
    "states": "total_states",
    "peak": "peak_states",
    "max_states_per_insn": "max_states_per_insn",
    "jited": "prog_size_jited",
}


class CostFileError(BpfError, ValueError):
    """A cost file can't be read or written."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file at `path` that belongs to the cost file `costs`, and says so in its errors."""

    path: Path
    costs: Path

    def read(self) -> str:
        """Returns the text. Raises `CostFileError`."""
        try:
            return self.path.read_text("utf-8")
        except OSError as e:
            fix = f"record it: pytest --bpf-cost={self.costs}" if isinstance(e, FileNotFoundError) else None
            raise CostFileError("cannot read costs", on=f"from {self.path}", why=e.strerror, fix=fix) from e
        except UnicodeDecodeError as e:
            raise self.wrong(1, "it is no text") from e

    def check_head(self, lines: Sequence[str], head: str, version: int) -> None:
        """Raises `CostFileError` for conflict markers, another first line, and for a newer version."""
        for number, line in enumerate(lines, 1):
            if _CONFLICT.match(line):
                fix = "resolve the conflict, or renew the"
                raise self.wrong(number, "it has a conflict marker of git", fix)
        found = re.match(rf"{head} (\d+)$", lines[0]) if lines else None
        if found is None:
            more = ", and is no CSV of veristat" if self.path == self.costs else ""
            raise self.wrong(1, f"it does not begin with {head!r}{more}")
        if int(found[1]) > version:
            why = f"it has version {found[1]}"
            fix = f"update pytest-bpfmaps, which reads versions up to {version}"
            raise CostFileError("cannot read costs", on=f"from {self.path}", why=why, fix=fix)

    def damaged(self, number: int, why: object) -> CostFileError:
        """Returns the error about a line that does not say what it should."""
        return self.wrong(number, f"line {number} is damaged ({why})")

    def wrong(self, number: int, why: str, fix: str = "get the file back, or renew the") -> CostFileError:
        """Returns the error about a line."""
        fix = f"{fix} file: delete it, then pytest --bpf-cost={self.costs}"
        return CostFileError("cannot read costs", on=f"from {self.path}:{number}", why=why, fix=fix)


def read(path: Path) -> Costs:
    """Returns the costs of a file, without lines. Raises `CostFileError` when it can't be read."""
    return parse(path, Source(path, path).read())


def parse(path: Path, text: str) -> Costs:
    """Returns the costs that the text of a file has. Raises `CostFileError`."""
    return _read_csv(path, text) if text.startswith(("file_name,", "prog_name,")) else _read_lines(path, text)


def _read_lines(path: Path, text: str) -> Costs:
    costs: Costs = {}
    source, lines = Source(path, path), text.splitlines()
    source.check_head(lines, HEAD, VERSION)
    for number, line in enumerate(lines[1:], 2):
        if line and not line.startswith("#"):
            try:
                key, cost = _parse(line)
            except ValueError as e:
                raise source.damaged(number, e) from e
            if key in costs:
                raise source.wrong(number, f"line {number} has the same program and kernel as another line")
            costs[key] = cost
    return costs


def name_of(word: str) -> str:
    """Returns the name that a word of a file stands for. A file's name may have bytes that are no UTF-8."""
    return unquote(word, errors="surrogateescape")


def _parse(line: str) -> tuple[Key, Cost]:
    words = line.split(" ")
    if len(words) < 5 or "" in words:
        raise ValueError("it has too few words")
    key, verdict = Key(*map(name_of, words[:4])), words[4]
    if verdict not in (ACCEPTED, REFUSED):
        raise ValueError(f"{verdict!r} is no verdict")
    figures: dict[str, int] = {}
    stack: tuple[int, ...] = ()
    for word in words[5:]:
        name, _, value = word.partition("=")
        if name == "stack":
            stack = tuple(map(int, value.split("+")))
        elif name in _FIGURES and value.isdecimal():
            figures[name] = int(value)
        else:
            raise ValueError(f"{word!r} is no figure")
    return key, Cost(verdict, figures, stack)


def _read_csv(path: Path, text: str) -> Costs:
    """Reads ``veristat -o csv``. The functions' stacks are one sum there."""
    costs: Costs = {}
    rows = csv.DictReader(io.StringIO(text))
    missing = {"file_name", "prog_name", "total_insns"} - set(rows.fieldnames or ())
    if missing:
        why = f"this CSV has no column {', '.join(sorted(missing))}"
        fix = "make it with: veristat -o csv -e file,prog,verdict,insns,states,peak_states"
        raise CostFileError("cannot read costs", on=f"from {path}", why=why, fix=fix)
    for number, row in enumerate(rows, 2):
        try:
            figures = {name: int(row[column]) for name, column in _CSV_FIGURES.items() if row.get(column)}
            stack = (int(row["stack_depth"]),) if row.get("stack_depth") else ()
        except (TypeError, ValueError) as e:
            raise Source(path, path).damaged(number, e) from e
        verdict = ACCEPTED if row.get("verdict", "success") in ("success", "1") else REFUSED
        add(
            costs,
            Key(row["file_name"], row["prog_name"], NO_VARIANT, ANY_KERNEL),
            Cost(verdict, figures, stack),
        )
    return costs


def text_of(costs: Costs) -> str:
    """Returns the text of a cost file. The same costs always give the same text."""
    return "\n".join([f"{HEAD} {VERSION}", _NOTE, *_lines(costs)]) + "\n"


def _lines(costs: Costs) -> Iterator[str]:
    for key in in_order(costs):
        cost = costs[key]
        words = [quote(part, safe=PLAIN, errors="surrogateescape") or NO_VARIANT for part in key]
        words += [
            cost.verdict,
            *(f"{name}={cost.figures[name]}" for name in _FIGURES if name in cost.figures),
        ]
        yield " ".join([*words, *([f"stack={'+'.join(map(str, cost.stack))}"] if cost.stack else [])])


def write(path: Path, costs: Costs) -> bool:
    """Writes a cost file, whole or not at all. Returns whether anything changed. Raises `CostFileError`."""
    return write_text(path, text_of(costs))


def write_text(path: Path, text: str) -> bool:
    """Writes a file, whole or not at all. Returns whether anything changed. Raises `CostFileError`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and path.read_text("utf-8", "replace") == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, "utf-8", "replace")
        beside.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise CostFileError("cannot write costs", on=f"to {path}", why=e.strerror) from e
    return True


def merged(old: Costs, new: Costs) -> Costs:
    """Returns the costs of a run together with those of programs and kernels that the run did not load."""
    return {**old, **new}
