"""Reads and writes cost files: text, sorted, with one line for each program, variant and kernel.

It reads the CSV of veristat, too.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from collections.abc import Iterator
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
_HEAD = re.compile(rf"{HEAD} (\d+)$")
_CONFLICT = re.compile(r"<{7} |={7}$|>{7} |\|{7} ")
_FIGURES = ("insns", "states", "peak", "max_states_per_insn", "jited", "translated")
_PLAIN = "/._+-:,[]@()"  # what names may have as it is
_CSV_FIGURES = {
    "insns": "total_insns",
    "states": "total_states",
    "peak": "peak_states",
    "max_states_per_insn": "max_states_per_insn",
    "jited": "prog_size_jited",
}


class CostFileError(BpfError, ValueError):
    """A cost file can't be read or written."""


def read(path: Path) -> Costs:
    """Returns the costs of a file. Raises `CostFileError` when it can't be read."""
    try:
        text = path.read_text()
    except OSError as e:
        fix = f"record it: pytest --bpf-cost={path}" if isinstance(e, FileNotFoundError) else None
        raise CostFileError("cannot read costs", on=f"from {path}", why=e.strerror, fix=fix) from e
    except UnicodeDecodeError as e:
        raise _error(path, 1, "it is no text") from e
    return parse(path, text)


def parse(path: Path, text: str) -> Costs:
    """Returns the costs that the text of a file has. Raises `CostFileError`."""
    return _read_csv(path, text) if text.startswith(("file_name,", "prog_name,")) else _read_lines(path, text)


def _read_lines(path: Path, text: str) -> Costs:
    costs: Costs = {}
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if _CONFLICT.match(line):
            raise _error(
                path, number, "it has a conflict marker of git", "resolve the conflict, or renew the"
            )
    head = _HEAD.match(lines[0]) if lines else None
    if head is None:
        raise _error(path, 1, f"it does not begin with {HEAD!r}, and is no CSV of veristat")
    if int(head[1]) > VERSION:
        fix = f"update pytest-bpfmaps, which reads versions up to {VERSION}"
        raise CostFileError("cannot read costs", on=f"from {path}", why=f"it has version {head[1]}", fix=fix)
    for number, line in enumerate(lines[1:], 2):
        if line and not line.startswith("#"):
            try:
                key, cost = _parse(line)
            except ValueError as e:
                raise _error(path, number, f"line {number} is damaged ({e})") from e
            if key in costs:
                raise _error(path, number, f"line {number} has the same program and kernel as another line")
            costs[key] = cost
    return costs


def _error(path: Path, number: int, why: str, fix: str = "get the file back, or renew the") -> CostFileError:
    fix = f"{fix} file: delete it, then pytest --bpf-cost={path}"
    return CostFileError("cannot read costs", on=f"from {path}:{number}", why=why, fix=fix)


def _parse(line: str) -> tuple[Key, Cost]:
    words = line.split(" ")
    if len(words) < 5 or "" in words:
        raise ValueError("it has too few words")
    key, verdict = Key(*map(unquote, words[:4])), words[4]
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
            raise _error(path, number, f"line {number} is damaged ({e})") from e
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
        words = [quote(part, safe=_PLAIN) or NO_VARIANT for part in key]
        words += [
            cost.verdict,
            *(f"{name}={cost.figures[name]}" for name in _FIGURES if name in cost.figures),
        ]
        yield " ".join([*words, *([f"stack={'+'.join(map(str, cost.stack))}"] if cost.stack else [])])


def write(path: Path, costs: Costs) -> bool:
    """Writes a cost file, whole or not at all. Returns whether anything changed. Raises `CostFileError`."""
    text = text_of(costs)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and path.read_text(errors="replace") == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text)
        beside.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise CostFileError("cannot write costs", on=f"to {path}", why=e.strerror) from e
    return True


def merged(old: Costs, new: Costs) -> Costs:
    """Returns the costs of a run together with those of programs and kernels that the run did not load."""
    return {**old, **new}
