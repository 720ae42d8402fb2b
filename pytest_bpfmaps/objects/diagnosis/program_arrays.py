"""Explains that a program can't use a program array, because programs of another type use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pytest_bpfmaps.elf.editor import RELOCATION, SHT_REL, Elf
from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.objects.attempt import Attempt
from pytest_bpfmaps.programs.program_spec import ProgramSpec

_OWNER = re.compile(r"^owner_prog_type:\s*(\d+)$", re.MULTILINE)
_ONE_TYPE = (
    "the kernel gives a program array to the first program that uses it, and refuses it to programs of "
    "another type, and with .frags in their section or without"
)


def explain_program_array(attempt: Attempt, program: ProgramSpec) -> Explanation | None:
    """Explains that another type of program uses the program's array, too; None if no other type does.

    The kernel says only EINVAL. Source: ``bpf_prog_map_compatible`` in kernel/bpf/core.c.
    """
    used = used_names(attempt.path, program.section, ".text")
    for spec in attempt.maps:
        if spec.type is not MapType.PROG_ARRAY or spec.name not in used:
            continue
        others = [p for p in attempt.programs if p.autoload and _kind(p) != _kind(program)]
        sharing = [p for p in others if spec.name in used_names(attempt.path, p.section, ".text")]
        if sharing:
            return Explanation(
                f'programs of SEC("{program.section}") and SEC("{sharing[0].section}") use the program array '
                f"{spec.name!r}; {_ONE_TYPE}",
                "declare a program array for each type of program",
            )
        owner = None if spec.reused is None else _owner(spec.reused.fd)
        if owner is not None and owner != program.type:
            return Explanation(
                f"programs of type {ProgramType.from_number(owner)} use the live program array "
                f"{spec.name!r}; {_ONE_TYPE}",
                "reuse an array that only programs of this type use, or leave it out of reuse=",
            )
    return None


def _kind(program: ProgramSpec) -> tuple[ProgramType | int, bool]:
    return program.type, ".frags" in program.section


def used_names(path: Path, *sections: str) -> set[str]:
    """Returns the names of the variables and functions that sections of an object refer to."""
    try:
        return set(_names(Elf(path.read_bytes()), sections))
    except (OSError, ValueError):
        return set()


def _names(elf: Elf, sections: tuple[str, ...]) -> Iterator[str]:
    symbols = elf.symbols()
    for table in elf.sections:
        if table.type != SHT_REL or table.info >= len(elf.sections):
            continue
        if elf.sections[table.info].name not in sections:
            continue
        content = elf.content(table)
        whole = content[: len(content) // RELOCATION.size * RELOCATION.size]
        for _, info in RELOCATION.iter_unpack(whole):
            if info >> 32 < len(symbols):
                yield symbols[info >> 32].name


def _owner(fd: int) -> int | None:
    """Returns the type of the programs that use a live program array; None if none has used it yet."""
    try:
        found = _OWNER.search(Path(f"/proc/self/fdinfo/{fd}").read_text())
    except OSError:
        return None
    return int(found[1]) if found else None
