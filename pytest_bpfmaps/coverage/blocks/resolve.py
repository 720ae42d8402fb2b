"""Adds up what gateways counted. It works in the process that reports, where the sources are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache.stored_files import digest
from pytest_bpfmaps.coverage.data import Branch, Coverage, FileCoverage, Function, KernelCoverage, Measured
from pytest_bpfmaps.coverage.engines import Record

NAME = "blocks"
WAYS = ("goes on", "jumps")  # of a conditional jump of the machine
GONE = "it ended before its code could be read"
LOST = "the kernel dropped records of which programs are loaded: some may be missing"
CHANGED = "changed"  # the digest of a source that is not as it was compiled
_LINES_OF_A_HEAD = 30  # between a function's name and its first statement


def resolve(records: Sequence[Record], total: Coverage, tell: Callable[[str], None]) -> None:
    """Adds what was counted to `total`. `tell` gets a sentence for what is not known."""
    for record in records:
        kernel, found = total.kernel(record.kernel), record.counted
        try:
            if "failed" in found:
                tell(f"{record.kernel}: {found['failed']}")
                continue
            if found["lost"]:
                tell(f"{record.kernel}: {LOST}")
            for program in found["programs"]:
                _add_program(kernel, program, record.test)
            for name, loader in found["missed"]:
                _count(kernel, Measured(_loader(loader), str(name), "", GONE))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            tell(f"{record.kernel}: what a guest counted is not as expected: {error!r}")


def _loader(name: str) -> str:
    return f"(loaded by {name})" if name else "(loaded by another process)"


def _count(kernel: KernelCoverage, program: Measured) -> None:
    kernel.programs[program] = kernel.programs.get(program, 0) + 1


def _add_program(kernel: KernelCoverage, program: Mapping[str, Any], test: str) -> None:
    why = str(program.get("why", ""))
    name = str(program["name"])
    if why and (not name or name.startswith(("libbpf_", "bpfmaps_"))):
        return  # such a program only asks what the kernel can do, or counts for this package
    if program["first"] and (not program["known"] or why):
        # The recording has listed each known program that can be measured.
        _count(kernel, Measured(_loader(program["comm"]), name, "" if why else NAME, why))
    for source, counts in program.get("files", {}).items():
        path = str(Path(source).absolute())
        file = _file(path, counts)
        kernel.file(path).add(file)
        ran = {line: count for line, count in file.lines.items() if count}
        if test and ran:
            lines = kernel.contexts.setdefault(test, {}).setdefault(path, {})
            for line, count in ran.items():
                lines[line] = lines.get(line, 0) + count


def _file(path: str, counts: Mapping[str, Any]) -> FileCoverage:
    made = FileCoverage(lines={int(line): int(count) for line, count in counts["lines"]})
    for line, number, way, count in counts["branches"]:
        key = Branch(int(line), str(int(number)), WAYS[way])
        made.branches[key] = made.branches.get(key, 0) + int(count)
    text, source = _source(path)
    for name, line, count in counts["functions"]:
        made.functions[Function(str(name), _head(text, str(name), int(line)))] = int(count)
    if source:
        made.sources[CHANGED if _differs(text, counts["texts"]) else source] = 1
    return made


@cache
def _source(path: str) -> tuple[tuple[str, ...], str]:
    """Returns the lines of a file, and its digest; both are empty if it can't be read."""
    try:
        raw = Path(path).read_bytes()
    except OSError:
        return (), ""
    return tuple(raw.decode(errors="surrogateescape").splitlines()), digest(raw)


def _head(text: Sequence[str], name: str, line: int) -> int:
    """Returns the line that a function begins in. Its first statement is in `line`."""
    called = re.compile(rf"\b{re.escape(name)}\s*\(")
    for at in range(min(line, len(text)), max(line - _LINES_OF_A_HEAD, 0), -1):
        if called.search(text[at - 1]):
            return at
    return line


def _differs(text: Sequence[str], compiled: Iterable[tuple[int, str]]) -> bool:
    """Returns whether the text of a line that was compiled is different now."""
    return any(line > len(text) or text[line - 1].strip() != was.strip() for line, was in compiled if was)
