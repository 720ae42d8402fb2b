"""Removes struct members of struct_ops maps that this kernel lacks, if the object leaves them zero.

A ``vmlinux.h`` for all kernels declares such members for older kernels, too. libbpf ignores them from 1.5 on.
An older libbpf refuses the object. So this module removes them from the BTF before libbpf reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pytest_bpfmaps.btf.editor import BtfEditor
from pytest_bpfmaps.btf.types import Btf, BtfType, Kind, Variable
from pytest_bpfmaps.elf.editor import RELOCATION, SHT_REL, Elf, Section
from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.kernel.btf import struct_members
from pytest_bpfmaps.libbpf import version

_SECTION = b".struct_ops"
_FIRST = (1, 5)  # the first libbpf that ignores such members itself


@dataclass(frozen=True, slots=True)
class Trimmed:
    """An object without such members; `members` has their names by the map's name."""

    data: bytes
    members: dict[str, list[str]] = field(default_factory=dict)


def without_unknown_members(data: bytes) -> Trimmed:
    """Returns the object `data` without such members; a damaged object is returned unchanged."""
    if _SECTION not in data or version() >= _FIRST:
        return Trimmed(data)
    try:
        return _trim(data)
    except (BpfError, ValueError, LookupError, struct.error):
        return Trimmed(data)  # libbpf's own error says what is wrong with it, or with this kernel's BTF


def _trim(data: bytes) -> Trimmed:
    elf = Elf(data)
    section = elf.section(".BTF")
    if section is None:
        return Trimmed(data)
    editor = BtfEditor(elf.content(section))
    if editor.btf is None:  # the section is empty
        return Trimmed(data)
    found = {}
    for places, variable in _variables(elf, editor.btf):
        declared = editor.btf.resolve(variable.type_id)
        if unknown := _unknown(elf, places, variable, declared):
            editor.drop_members(declared.id, set(unknown))
            found[variable.name] = unknown
    section.content = editor.to_bytes()
    return Trimmed(elf.to_bytes() if found else data, found)


def _variables(elf: Elf, btf: Btf) -> Iterator[tuple[Section, Variable]]:
    for places in elf.sections:
        if places.name in (".struct_ops", ".struct_ops.link"):
            datasec = btf.find(places.name, Kind.DATASEC)
            at = {s.name: s.value for s in elf.symbols() if s.section == places.index}
            for v in datasec.variables() if datasec else ():
                yield places, replace(v, offset=at.get(v.name, v.offset))


def _unknown(elf: Elf, places: Section, variable: Variable, declared: BtfType) -> list[str]:
    """Returns the members that the kernel's struct of that name lacks, if none of them is set."""
    known = struct_members(declared.name.partition("___")[0])
    if declared.kind is not Kind.STRUCT or known is None:
        return []
    content = elf.content(places)
    members = declared.members()
    starts = [variable.offset + m.bit_offset // 8 for m in members]
    ends = [*starts[1:], variable.offset + declared.size]
    set_places = _relocated(elf, places)
    unknown = []
    for member, start, end in zip(members, starts, ends, strict=True):
        if member.name and member.name not in known:
            if any(content[start:end]) or any(start <= at < end for at in set_places):
                return []  # the program sets it: libbpf's own error names it
            unknown.append(member.name)
    return unknown


def _relocated(elf: Elf, places: Section) -> list[int]:
    """Returns the offsets in a section that the linker or libbpf fills in: pointers to programs."""
    tables = [s for s in elf.sections if s.type == SHT_REL and s.info == places.index]
    return [at for s in tables for at, _ in RELOCATION.iter_unpack(elf.content(s))]
