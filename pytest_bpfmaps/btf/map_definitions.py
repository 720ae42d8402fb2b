"""Reads the definitions of maps in an object's BTF: the structs in its section ``.maps``.

The kernel keeps 15 characters of a map's name, and no types for buffers, queues and maps of maps. The BTF
that libbpf and other loaders give to the kernel has both. https://docs.kernel.org/bpf/map_hash.html shows
such definitions.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_bpfmaps.btf.types import Btf, BtfType, Kind

_SECTION = ".maps"
_NUMBERS = ("type", "max_entries", "key_size", "value_size", "map_flags")


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """A map as its source defines it. `numbers` are those of ``__uint``; a type id of 0 means none."""

    name: str
    numbers: dict[str, int]
    key_type: int
    value_type: int

    def fits(self, name: str, type: int) -> bool:
        """Returns whether a map with the kernel's `name` and `type` may be this one.

        A loader may have resized it.
        """
        return self.name[:15] == name and self.numbers.get("type", type) == type


def map_definitions(btf: Btf) -> list[MapDefinition]:
    """Returns the definitions in the section ``.maps``; none if the BTF has no such section."""
    section = btf.find(_SECTION, Kind.DATASEC)
    if section is None:
        return []
    return [_definition(variable.name, btf.resolve(variable.type_id)) for variable in section.variables()]


def _definition(name: str, struct: BtfType) -> MapDefinition:
    numbers, types = {}, {"key": 0, "value": 0}
    for member in struct.members() if struct.kind is Kind.STRUCT else ():
        pointer = struct.btf.resolve(member.type_id)
        if pointer.kind is not Kind.PTR:
            continue
        if member.name in _NUMBERS:
            array = struct.btf.resolve(pointer.size_or_type)
            numbers[member.name] = array.array()[1] if array.kind is Kind.ARRAY else 0
        elif member.name in types:
            types[member.name] = pointer.size_or_type
    return MapDefinition(name, numbers, types["key"], types["value"])
