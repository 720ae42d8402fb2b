"""Reads legacy map definitions: ``struct bpf_map_def SEC("maps") x = {…}`` and its relatives."""

from __future__ import annotations

import errno
import struct
import sys
from dataclasses import dataclass

from pytest_bpfmaps.btf.types import Btf, BtfType, Kind
from pytest_bpfmaps.elf.editor import STT_OBJECT, Elf, Section, Symbol
from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.kernel.bpf_types import OF_MAPS

_FIX = 'define the map anew: struct { __uint(type, …); __type(key, …); … } name SEC(".maps");'
# iproute2's struct bpf_elf_map has other names for the same fields
_SYNONYMS = {
    "map_type": "type",
    "size_key": "key_size",
    "size_value": "value_size",
    "max_elem": "max_entries",
    "flags": "map_flags",
}
_PLAIN = ("type", "key_size", "value_size", "max_entries", "map_flags")
_KNOWN = {*_PLAIN, "inner_map_idx", "numa_node", "id", "pinning", "inner_id", "inner_idx"}
# without type information only the size shows which of the known structs it is
_BY_SIZE = {
    16: _PLAIN[:4],
    20: _PLAIN,
    24: (*_PLAIN, "inner_map_idx"),
    28: (*_PLAIN, "inner_map_idx", "numa_node"),
}
_NONE = 0xFFFFFFFF  # -1


@dataclass(frozen=True, slots=True)
class Definition:
    """One legacy definition. `symbol_index` is the index of its ELF symbol, `fields` are the struct's values.

    `type_id` is the id of its VAR in the object's BTF, or 0.
    """

    symbol: Symbol
    symbol_index: int
    fields: dict[str, int]
    type_id: int

    @property
    def name(self) -> str:
        """The map's name."""
        return self.symbol.name

    @property
    def type(self) -> int:
        """``enum bpf_map_type``."""
        return self.fields["type"]

    @property
    def of_maps(self) -> bool:
        """Whether its values are maps."""
        return self.type in OF_MAPS


def is_legacy(section: Section) -> bool:
    """Returns whether a section has legacy definitions: ``maps``, or ``maps/x`` of some loaders."""
    return section.name == "maps" or section.name.startswith("maps/")


def read_definitions(elf: Elf, btf: Btf | None, on: str) -> list[Definition]:
    """Returns the legacy definitions of an object, ordered by section and offset; `on` names the object.

    Raises `LoadError` for a definition that uses a field which libbpf does not have.
    """
    variables = {v.name: v for v in btf or () if v.kind is Kind.VAR}
    found = []
    for section in filter(is_legacy, elf.sections):
        content = elf.content(section)
        for index, symbol in enumerate(elf.symbols()):
            if symbol.section == section.index and symbol.type == STT_OBJECT:
                variable = variables.get(symbol.name)
                fields = _read(symbol, variable, content, f"map {symbol.name!r} of {on}", section.name)
                found.append(Definition(symbol, index, fields, variable.id if variable else 0))
    return sorted(found, key=lambda d: (d.symbol.section, d.symbol.value))


def inner_of(outer: Definition, all: list[Definition], on: str) -> tuple[Definition, dict[int, Definition]]:
    """Returns the template for the values of a map of maps, and the maps that are in its slots at first.

    ``inner_map_idx`` counts the object's definitions; iproute2's ``inner_id`` names an ``id``, whose
    ``inner_idx`` is the slot.
    """
    on = f"map {outer.name!r} of {on}"
    inner_id, index = outer.fields.get("inner_id", 0), outer.fields.get("inner_map_idx")
    if inner_id:
        fitting = [d for d in all if d.fields.get("id") == inner_id and not d.of_maps]
        if not fitting:
            raise refusal(on, f"its inner_id is {inner_id}, but no map has that id")
        slots = {s: d for d in fitting if (s := d.fields.get("inner_idx", _NONE)) != _NONE}
        return fitting[0], slots
    if index is None:
        raise refusal(on, "its values are maps, but the definition has no inner_map_idx that says which")
    if index >= len(all) or all[index].of_maps:
        known = ", ".join(f"{i} {d.name}" for i, d in enumerate(all))
        raise refusal(on, f"its inner_map_idx is {index}, and the object's maps are: {known}")
    return all[index], {}


def refusal(on: str, why: str, fix: str = _FIX) -> LoadError:
    """Returns the exception for a definition that can't be upgraded."""
    return LoadError(
        "cannot upgrade the legacy definition of", on=on, why=why, fix=fix, errno=errno.EOPNOTSUPP
    )


def _read(symbol: Symbol, variable: BtfType | None, content: bytes, on: str, section: str) -> dict[str, int]:
    raw = content[symbol.value : symbol.value + symbol.size]
    fields = _untyped(raw, on) if variable is None else _typed(variable, raw, on, section)
    if "type" not in fields:
        raise refusal(on, f"it has no field 'type'; its fields are: {', '.join(fields) or 'none'}")
    for name, value in fields.items():
        if value and name not in _KNOWN:
            raise refusal(on, f"its field {name!r} is set, but libbpf has no such field")
    return fields


def _typed(variable: BtfType, raw: bytes, on: str, section: str) -> dict[str, int]:
    """Returns the fields by the struct's own names."""
    btf = variable.btf
    struct_type = btf.resolve(variable.size_or_type)
    if struct_type.kind is not Kind.STRUCT:
        raise refusal(on, f"it is not a struct, but of the kind {struct_type.kind.name}")
    members = struct_type.members()
    if any(m.name == "type" and btf.resolve(m.type_id).kind is Kind.PTR for m in members):
        raise LoadError(
            "cannot open the definition of",
            on=on,
            why=f'it is in SEC("{section}"), and libbpf reads __uint and __type in SEC(".maps") only',
            fix='write SEC(".maps"), with a dot',
            errno=errno.EOPNOTSUPP,
        )
    starts = [m.bit_offset // 8 for m in members]
    ends = [*starts[1:], struct_type.size]
    return {
        _SYNONYMS.get(m.name, m.name): int.from_bytes(raw[start:end], sys.byteorder)
        for m, start, end in zip(members, starts, ends, strict=True)
    }


def _untyped(raw: bytes, on: str) -> dict[str, int]:
    names = _BY_SIZE.get(len(raw))
    if names is None:
        why = f"the object has no types (BTF), and no known struct bpf_map_def has a size of {len(raw)} bytes"
        raise refusal(on, why, "compile the object with 'clang -g'")
    return dict(zip(names, (v for (v,) in struct.iter_unpack("=I", raw)), strict=True))
