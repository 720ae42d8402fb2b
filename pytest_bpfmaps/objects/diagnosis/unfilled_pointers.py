"""Finds variables that hold addresses. libbpf sets them for maps and struct_ops only; others stay 0."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_bpfmaps.compiler.portability import Finding
from pytest_bpfmaps.elf.editor import RELOCATION, SHT_REL, STT_OBJECT, Elf, Section
from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.objects.diagnosis.source_lines import variable_line
from pytest_bpfmaps.verifier import Rejection

_TARGET = re.compile(r"\.(?:data|rodata)\b")
INSTEAD = "hold the texts themselves, const char names[][16] = {…}; select other things with if or switch"


def unfilled_pointers(data: bytes) -> list[str]:
    """Returns the names of variables of an object that hold addresses which stay 0."""
    if b".rel.data" not in data and b".rel.rodata" not in data:
        return []
    try:
        elf = Elf(data)
        tables = [s for s in elf.sections if s.type == SHT_REL and s.info < len(elf.sections)]
        return list(dict.fromkeys(name for table in tables for name in _names(elf, table)))
    except ValueError:
        return []


def _names(elf: Elf, table: Section) -> Iterator[str]:
    target = elf.sections[table.info]
    if not _TARGET.match(target.name):
        return
    content = elf.content(table)
    whole = content[: len(content) // RELOCATION.size * RELOCATION.size]
    places = [offset for offset, _ in RELOCATION.iter_unpack(whole)]
    for symbol in elf.symbols():
        if symbol.section != target.index or symbol.type != STT_OBJECT or not symbol.name:
            continue
        if any(symbol.value <= place < symbol.value + symbol.size for place in places):
            yield symbol.name


def told_pointers(path: Path, name: str, variables: Iterable[str]) -> Iterator[Finding]:
    """Yields the findings for such `variables` of the object at `path`, which messages call `name`."""
    for variable in variables:
        line = variable_line(path, variable)
        file, number = (name, 0) if line is None else (str(line.file), line.number)
        yield Finding(file, number, _what(variable), INSTEAD)


def explain_pointer(found: Rejection, path: Path) -> Explanation | None:
    """Explains a rejection of an access through such a variable; None for another rejection."""
    if "invalid mem access" not in found.text:
        return None
    lines = "\n".join((found.source, *(step.source for step in found.steps.values())))
    variables = unfilled_pointers(path.read_bytes())
    used = next((v for v in variables if re.search(rf"\b{re.escape(v)}\b", lines)), None)
    return None if used is None else Explanation(_what(used), INSTEAD)


def _what(variable: str) -> str:
    return f"variable {variable!r} holds addresses, which libbpf does not set: the program reads 0 there"
