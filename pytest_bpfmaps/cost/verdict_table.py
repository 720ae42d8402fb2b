"""Shows verdicts as a table of programs by kernel, with the refusals below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cost.costs import Key
from pytest_bpfmaps.cost.verdicts import ACCEPTED, LOST

Cell = Mapping[str, Any]
"""A verdict in plain types, with its ``kernel``."""
_MOST_DETAILS = 8


def table(cells: Sequence[Cell], kernels: Sequence[str]) -> list[str]:
    """Returns the lines of the table: instructions where a program was accepted."""
    rows: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault((cell["object"], cell["program"]), {})[cell["kernel"]] = cell
    names = {key: f"  {key[1] or '(the object)'}" for key in rows}
    width = max((len(text) for text in (*names.values(), *(key[0] for key in rows))), default=0)
    widths = [max(len(kernel), 9) for kernel in kernels]
    head = "  ".join(f"{kernel:>{size}}" for kernel, size in zip(kernels, widths, strict=True))
    lines, current = [f"{'':{width}}  {head}"], None
    for key, by_kernel in rows.items():
        if key[0] != current:
            current = key[0]
            lines.append(current)
        texts = [_cell(by_kernel.get(kernel)) for kernel in kernels]
        padded = "  ".join(f"{text:>{size}}" for text, size in zip(texts, widths, strict=True))
        lines.append(f"{names[key]:{width}}  {padded}")
    return lines


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    if cell["verdict"] != ACCEPTED:
        return str(cell["verdict"])
    return f"{cell['instructions']:,}" if cell["instructions"] is not None else "accepted"


def refusals(cells: Sequence[Cell]) -> list[str]:
    """Returns the lines about programs that were not accepted; kernels that say the same share one text."""
    kernels: dict[tuple[str, str, str, str], list[str]] = {}
    shown: dict[tuple[str, str, str, str], Cell] = {}
    for cell in cells:
        if cell["verdict"] in (ACCEPTED, LOST):
            continue
        key = (cell["object"], cell["program"], cell["why"] or cell["message"], cell["text"])
        kernels.setdefault(key, []).append(cell["kernel"])
        if key not in shown or (cell["line"] and not shown[key]["line"]):
            shown[key] = cell
    lines: list[str] = []
    for key, cell in shown.items():
        program = f"program {cell['program']!r} of " if cell["program"] else ""
        on = f" on {', '.join(filter(None, kernels[key]))}" if any(kernels[key]) else ""
        lines += ["", f"{program}{cell['object']}{on}: {cell['why'] or cell['message']}"]
        if cell["line"]:
            lines.append(f"    {Path(cell['file']).name}:{cell['line']}: {cell['text']}")
        elif cell["text"]:
            lines.append(f"    {cell['text']}")
        else:
            lines += [f"    {line.strip()}" for line in cell["details"].splitlines()[:_MOST_DETAILS]]
        if cell["fix"]:
            lines.append(f"  -> {cell['fix']}")
    return lines


def losses(cells: Sequence[Cell]) -> list[str]:
    """Returns the lines about kernels that gave no answer; objects that have the same reason share one."""
    objects: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell["verdict"] == LOST:
            objects.setdefault((cell["kernel"], cell["message"]), []).append(cell["object"])
    lines: list[str] = []
    for (kernel, text), names in objects.items():
        what = names[0] if len(names) == 1 else f"{len(names)} objects"
        lines += ["", f"no answer{f' from {kernel}' if kernel else ''} about {what}: {text}"]
    return lines


def kernels_in_order(cells: Sequence[Cell]) -> list[str]:
    """Returns the kernels of the cells: the host first, then by version."""
    found = {cell["kernel"]: None for cell in cells if cell["kernel"]}
    return sorted(found, key=lambda name: Key("", "", "", name).order if name != "host" else ())
