"""Puts the variables of a linked object where its symbols say, if libbpf's linker left them elsewhere.

A source that only declares a map or a variable in a section, ``extern … SEC(".maps")``, gives it the offset
0. If that source is linked before the one that defines it, libbpf's linker (also 1.8) keeps that offset in
the types. libbpf then can't find the map, and a skeleton reads other bytes than the program. The ELF symbols
are right.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from pytest_bpfmaps.btf.editor import BtfEditor
from pytest_bpfmaps.btf.types import Btf
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.errors import BpfError

_LOCAL = 0  # STB_LOCAL


@dataclass(frozen=True, slots=True)
class Placed:
    """An object with right offsets; `moved` has the (section, name) of each variable that was elsewhere."""

    data: bytes
    moved: list[tuple[str, str]] = field(default_factory=list)


def with_places_of_symbols(data: bytes) -> Placed:
    """Returns the object `data` with right offsets; a damaged object is returned unchanged."""
    try:
        return _place(data)
    except (BpfError, ValueError, LookupError, struct.error):
        return Placed(data)  # libbpf's own error says what is wrong with it


def _place(data: bytes) -> Placed:
    elf = Elf(data)
    types = elf.section(".BTF")
    # clang leaves the size 0, and libbpf then takes all offsets from the symbols itself
    linked = [t for t in Btf(elf.content(types)).datasecs.values() if t.size_or_type] if types else []
    if types is None or not linked:
        return Placed(data)
    editor, moved = BtfEditor(elf.content(types)), []
    symbols = [s for s in elf.symbols() if s.binding != _LOCAL]
    for datasec in linked:
        section = elf.section(datasec.name)
        places = {s.name: s.value for s in symbols if section and s.section == section.index}
        wrong = {
            i: v.name
            for i, v in enumerate(datasec.variables() if places else ())
            if not v.is_static and places.get(v.name, v.offset) != v.offset
        }
        if wrong:
            editor.move_variables(datasec.id, {i: places[name] for i, name in wrong.items()})
            moved += [(datasec.name, name) for name in wrong.values()]
    types.content = editor.to_bytes()
    return Placed(elf.to_bytes() if moved else data, moved)
