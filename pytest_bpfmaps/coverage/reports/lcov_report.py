"""lcov's tracefile, which many services and editors read: geninfo(1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pytest_bpfmaps.coverage.reports.report_file import put
from pytest_bpfmaps.coverage.view import FileView, View


def write(view: View, target: Path) -> None:
    """Writes the file. Raises `OSError`."""
    lines = [line for file in view.files for line in _record(file)]
    put(target, "".join(f"{line}\n" for line in lines))


def _conditions(file: FileView) -> Iterator[str]:
    """Yields the records of MC/DC, which lcov reads since 2.2: two for each condition, true and false.

    lcov takes two decisions of one line for the same if they have as many conditions. So all conditions of a
    line are one group.
    """
    lines: dict[int, list[tuple[bool, str]]] = {}
    for each in file.decisions:
        lines.setdefault(each.line, []).extend(
            (one.decided, f"condition {number} at {one.line}:{one.column}")
            for number, one in enumerate(each.conditions, 1)
            if not one.constant
        )
    for line, group in lines.items():
        for index, (decided, text) in enumerate(group):
            yield from (f"MCDC:{line},{len(group)},{sense},{int(decided)},{index},{text}" for sense in "tf")
    found = [decided for group in lines.values() for decided, _ in group]
    if found:
        yield f"MCF:{2 * len(found)}"
        yield f"MCH:{2 * sum(found)}"


def _record(file: FileView) -> Iterator[str]:
    total = file.total
    yield "TN:"
    yield f"SF:{file.name}"
    functions = sorted(total.functions.items(), key=lambda one: (one[0].line, one[0].name))
    yield from (f"FN:{function.line},{function.name}" for function, _ in functions)
    yield from (f"FNDA:{count},{function.name}" for function, count in functions)
    yield f"FNF:{len(functions)}"
    yield f"FNH:{sum(bool(count) for _, count in functions)}"
    for line, ways in sorted(file.branches().items()):
        blocks = list(dict.fromkeys(branch.condition for branch, _ in ways))
        for number, (branch, count) in enumerate(ways):
            # "-" means that the condition was never evaluated.
            taken = str(count) if total.lines.get(line) else "-"
            yield f"BRDA:{line},{blocks.index(branch.condition)},{number},{taken}"
    yield f"BRF:{len(total.branches)}"
    yield f"BRH:{sum(map(bool, total.branches.values()))}"
    yield from _conditions(file)
    yield from (f"DA:{line},{count}" for line, count in sorted(total.lines.items()))
    yield f"LF:{len(total.lines)}"
    yield f"LH:{sum(map(bool, total.lines.values()))}"
    yield "end_of_record"
