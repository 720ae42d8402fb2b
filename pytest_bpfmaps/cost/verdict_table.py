"""Shows verdicts as a table of programs by kernel, with the refusals below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cost.verdicts import ACCEPTED, LOST

Cell = Mapping[str, Any]
"""A verdict in plain types, with its ``kernel``."""


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
        if cell["verdict"] == ACCEPTED:
            continue
        key = (cell["object"], cell["program"], cell["why"] or cell["message"], cell["text"])
        kernels.setdefault(key, []).append(cell["kernel"])
        if key not in shown or (cell["line"] and not shown[key]["line"]):
            shown[key] = cell
    lines: list[str] = []
    for key, cell in shown.items():
        program = f"program {cell['program']!r} of " if cell["program"] else ""
        lines += ["", f"{program}{cell['object']} on {', '.join(kernels[key])}: {_why(cell)}"]
        if cell["line"]:
            lines.append(f"    {Path(cell['file']).name}:{cell['line']}: {cell['text']}")
        elif cell["text"]:
            lines.append(f"    {cell['text']}")
        if cell["fix"]:
            lines.append(f"  -> {cell['fix']}")
    return lines


def _why(cell: Cell) -> str:
    text = cell["why"] or cell["message"]
    return f"no answer: {text}" if cell["verdict"] == LOST else str(text)
