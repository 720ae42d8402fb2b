"""Rewrites legacy map definitions, which libbpf 1.0 and later refuse.

The definitions move from the sections ``maps`` and ``maps/…`` to ``.maps``, where libbpf reads a map's
attributes from the types (BTF) of a variable. The programs' instructions stay as clang made them.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from pathlib import Path

from pytest_bpfmaps.btf.editor import BtfEditor
from pytest_bpfmaps.btf.types import Kind
from pytest_bpfmaps.compiler.legacy_definitions import (
    Definition,
    inner_of,
    is_legacy,
    read_definitions,
    refusal,
)
from pytest_bpfmaps.elf.editor import (
    RELOCATION,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHT_PROGBITS,
    SHT_REL,
    STB_GLOBAL,
    STB_LOCAL,
    STT_OBJECT,
    STT_SECTION,
    Elf,
    Section,
    Symbol,
    moved,
)
from pytest_bpfmaps.errors import LoadError

_MAPS = ".maps"
_NOTE = ".bpfmaps.legacy"  # a section of the upgraded object: the names of the maps that were legacy ones
_POINTER = 8  # bytes of a BPF pointer
_R_BPF_64_ABS64 = 2
_F_NUMA_NODE = 4
_MOST_SLOTS = 4096
# BPF_MAP_TYPE_* of HASH and ARRAY (also LRU and per-CPU), QUEUE, STACK. Their values are plain data, so a
# value without a type can be read as an integer of its size.
_DATA = {1, 2, 5, 6, 9, 10, 22, 23}


def upgraded(data: bytes, name: str) -> bytes | None:
    """Returns the object `data`, called `name`, with its legacy definitions converted; None if it has none.

    It also returns None for data that is not an ELF object of this machine's byte order. Raises `LoadError`
    with the reason for a definition that can't be converted.
    """
    try:
        elf = Elf(data)
        if not any(map(is_legacy, elf.sections)):
            return None
        return _Upgrade(elf, name).run()
    except (ValueError, LookupError, ArithmeticError, struct.error):
        return None  # libbpf's own error says what is wrong with a damaged file


def upgrade_file(path: Path) -> None:
    """Converts the legacy definitions of the object at `path`, and writes it again.

    An object with a definition that can't be converted stays as it is: opening it gives the reason.
    """
    with contextlib.suppress(LoadError):
        new = upgraded(path.read_bytes(), path.name)
        if new is not None:
            path.write_bytes(new)


def upgraded_maps(data: bytes) -> list[str]:
    """Returns the names of the maps of an upgraded object that had legacy definitions; none if damaged."""
    if _NOTE.encode() not in data:
        return []
    try:
        elf = Elf(data)
        section = elf.section(_NOTE)
        return elf.content(section).decode().split("\0") if section else []
    except (ValueError, LookupError, struct.error):
        return []  # libbpf's own error says what is wrong with a damaged file


class _Upgrade:
    def __init__(self, elf: Elf, name: str) -> None:
        self._elf = elf
        self._on = name
        btf = elf.section(".BTF")
        self._btf_section = btf
        self._types = BtfEditor(elf.content(btf) if btf else None)
        self._definitions = read_definitions(elf, self._types.btf, name)
        self._index_type = self._types.add_int("__u32", 4)
        self._unit = self._types.add_int("unsigned char", 1)

    def run(self) -> bytes:
        """Converts all definitions, and returns the new object."""
        target, present = self._target()
        content = bytearray(self._elf.content(target))
        made: list[tuple[int, int, int]] = []
        slots: list[tuple[int, str]] = []
        for definition in self._definitions:
            content += bytes(-len(content) % _POINTER)
            at = len(content)
            type_id, size = self._struct(definition)
            inner = self._slots(definition)
            slots += [(at + size + slot * _POINTER, d.name) for slot, d in inner.items()]
            size += _POINTER * (max(inner) + 1 if inner else 0)
            made.append((self._types.add_variable(definition.name, type_id), at, size))
            content += bytes(size)
        target.content = bytes(content)
        self._types.add_datasec(_MAPS, len(content), present + made)
        indices = self._move_symbols(target, made)
        self._fill(target, [(at, indices[name]) for at, name in slots])
        self._write_types()
        names = "\0".join(d.name for d in self._definitions)
        self._elf.add_section(_NOTE, SHT_PROGBITS, names.encode())
        return self._elf.to_bytes()

    def _target(self) -> tuple[Section, list[tuple[int, int, int]]]:
        """Returns the section that the definitions go to, and the variables that are there already."""
        for section in filter(is_legacy, self._elf.sections):
            section.name = f".legacy.{section.name}"  # libbpf refuses an object with the old name
        for old in self._types.btf or ():
            if old.kind is Kind.DATASEC and (old.name == "maps" or old.name.startswith("maps/")):
                self._types.drop(old.id)
        there = self._elf.section(_MAPS)
        if there is None:
            flags = SHF_ALLOC | SHF_WRITE
            return self._elf.add_section(_MAPS, SHT_PROGBITS, b"", flags=flags, align=_POINTER), []
        return there, self._present(there)

    def _present(self, section: Section) -> list[tuple[int, int, int]]:
        """Returns the variables of .maps in an object that also has legacy definitions.

        Their offsets come from the symbols, because clang writes none into the BTF.
        """
        btf = self._types.btf
        datasec = btf.find(_MAPS, Kind.DATASEC) if btf else None
        if btf is None or datasec is None:
            raise refusal(f"the maps of {self._on}", "its section .maps has no types (BTF)")
        self._types.drop(datasec.id)
        symbols = {s.name: s for s in self._elf.symbols() if s.section == section.index}
        ids = {v.name: v.id for v in btf.of_kind(Kind.VAR)}
        names = [v.name for v in datasec.variables()]
        return [(ids[n], symbols[n].value, symbols[n].size) for n in names]

    def _struct(self, definition: Definition, *, inner: bool = False) -> tuple[int, int]:
        """Returns the type of a variable with the same attributes, and its size in bytes."""
        fields = definition.fields
        wanted = {n: fields.get(n, 0) for n in ("type", "key_size", "value_size", "max_entries", "map_flags")}
        if fields.get("map_flags", 0) & _F_NUMA_NODE:
            wanted["numa_node"] = fields.get("numa_node", 0)
        if fields.get("pinning") and not inner:
            wanted["pinning"] = 1  # LIBBPF_PIN_BY_NAME
        if definition.of_maps:
            wanted["value_size"] = 0  # libbpf sets it for a map with an inner map
        members = [(n, self._number(v)) for n, v in wanted.items() if v]
        members += [(n, self._types.add_pointer(t)) for n, t in self._key_and_value(definition)]
        size = len(members) * _POINTER
        placed = [(n, t, i * _POINTER) for i, (n, t) in enumerate(members)]
        if definition.of_maps:
            template, _ = inner_of(definition, self._definitions, self._on)
            values = self._types.add_pointer(self._struct(template, inner=True)[0])
            placed.append(("values", self._types.add_array(values, self._index_type, 0), size))
        return self._types.add_struct(size, placed), size

    def _number(self, value: int) -> int:
        """Returns a type for a number, in libbpf's way: a pointer to an array of so many elements."""
        return self._types.add_pointer(self._types.add_array(self._unit, self._index_type, value))

    def _key_and_value(self, definition: Definition) -> list[tuple[str, int]]:
        """Returns the types of key and value: from ``BPF_ANNOTATE_KV_PAIR``, else integers of their sizes.

        A key or value whose size no integer has gets no type.
        """
        sizes = {"key": definition.fields.get("key_size", 0), "value": definition.fields.get("value_size", 0)}
        btf = self._types.btf
        annotated = btf.find(f"____btf_map_{definition.name}", Kind.STRUCT) if btf else None
        if annotated is not None:
            return [(m.name, m.type_id) for m in annotated.members() if m.name in sizes]
        if definition.type not in _DATA:
            return []
        integers = {1: "__u8", 2: "__u16", 4: "__u32", 8: "__u64"}
        return [(n, self._types.add_int(integers[s], s)) for n, s in sizes.items() if s in integers]

    def _slots(self, definition: Definition) -> dict[int, Definition]:
        if not definition.of_maps:
            return {}
        _, slots = inner_of(definition, self._definitions, self._on)
        most = min(_MOST_SLOTS, definition.fields.get("max_entries", 0))
        for slot, inner in slots.items():
            if slot >= most:
                on = f"map {inner.name!r} of {self._on}"
                raise refusal(on, f"its inner_idx is {slot}, and {definition.name!r} has {most} slots")
        return slots

    def _move_symbols(self, target: Section, places: list[tuple[int, int, int]]) -> dict[str, int]:
        """Moves the definitions' symbols to their new places; returns the index of each by name.

        A static definition has a local symbol, and programs refer to it by section and offset. It gets a
        global symbol, because libbpf needs one.
        """
        symbols = self._elf.symbols()
        indices, at = {}, {}
        for definition, (_, place, size) in zip(self._definitions, places, strict=True):
            index = definition.symbol_index
            old = symbols[index]
            new = moved(old, target.index, place, size)
            symbols[index] = new
            if old.binding == STB_LOCAL:
                index = len(symbols)
                symbols.append(replace(new, info=STB_GLOBAL << 4 | STT_OBJECT, other=0))
            indices[definition.name] = at[old.section, old.value] = index
        for section in self._elf.sections:
            if section.type == SHT_REL and self._elf.sections[section.info].flags & SHF_EXECINSTR:
                self._relink(section, symbols, at)
        self._elf.set_symbols(symbols)
        return indices

    def _relink(self, relocations: Section, symbols: list[Symbol], at: dict[tuple[int, int], int]) -> None:
        """Turns references to a section and an offset (in the instruction) into references to a symbol."""
        legacy = {section for section, _ in at}
        program = self._elf.sections[relocations.info]
        code = bytearray(self._elf.content(program))
        changed = []
        for offset, old in RELOCATION.iter_unpack(self._elf.content(relocations)):
            symbol, info = symbols[old >> 32], old
            if symbol.type == STT_SECTION and symbol.section in legacy:
                (within,) = struct.unpack_from("=i", code, offset + 4)
                index = at[symbol.section, within]
                struct.pack_into("=i", code, offset + 4, 0)
                info = index << 32 | old & 0xFFFFFFFF
            changed.append(RELOCATION.pack(offset, info))
        if b"".join(changed) != self._elf.content(relocations):
            relocations.content = b"".join(changed)
            program.content = bytes(code)

    def _fill(self, target: Section, slots: list[tuple[int, int]]) -> None:
        """Tells libbpf which maps are in a map of maps at first: one relocation for each slot."""
        if not slots:
            return
        raw = b"".join(RELOCATION.pack(at, index << 32 | _R_BPF_64_ABS64) for at, index in slots)
        there = self._elf.section(f".rel{_MAPS}")
        if there is not None:
            there.content = self._elf.content(there) + raw
            return
        table = self._elf.symbol_table()
        assert table is not None
        self._elf.add_section(
            f".rel{_MAPS}", SHT_REL, raw, link=table.index, info=target.index, align=8, entsize=16
        )

    def _write_types(self) -> None:
        content = self._types.to_bytes()
        if self._btf_section is None:
            self._elf.add_section(".BTF", SHT_PROGBITS, content, align=4)
        else:
            self._btf_section.content = content
