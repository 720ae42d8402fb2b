"""Types and full names of maps that another process made, from the BTF of the map or of its programs.

The kernel has the types of a map's keys and values, but none of a buffer's records, and 15 characters of its
name. It has no name of the maps that libbpf creates with a BPF token. The BTF of a program that uses the map
has the types, and the map's definition.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.map_definitions import MapDefinition, map_definitions
from pytest_bpfmaps.btf.types import Kind
from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.btf import load_codecs
from pytest_bpfmaps.kernel.program_info import ProgramInfo, is_cut
from pytest_bpfmaps.maps.info import BUFFERS, MapInfo

_UNTYPED = frozenset(
    {
        *(MapType.QUEUE, MapType.STACK, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS, MapType.SOCKMAP),
        *(MapType.SOCKHASH, MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP, MapType.XSKMAP),
        *(MapType.STACK_TRACE, MapType.CGROUP_ARRAY, MapType.BLOOM_FILTER),
    }
)
"""Maps for which libbpf gives the kernel no types."""


@dataclass(frozen=True, slots=True)
class ForeignTypes:
    """A map's attributes with type ids, the codecs of the BTF that these belong to, and its full name."""

    info: MapInfo
    codecs: Codecs | None
    name: str


def foreign_types(info: MapInfo, programs: Callable[[], Iterable[ProgramInfo]]) -> ForeignTypes:
    """Returns the types of a map; `programs` returns the programs that use it, and is called if needed."""
    own = load_codecs(info.btf_id) if info.btf_id else None
    is_whole = bool(info.name) and not is_cut(info.name)
    if own is not None and is_whole:
        return ForeignTypes(info, own, info.name)
    if own is None and is_whole and not _may_have_types(info):
        return ForeignTypes(info, None, info.name)
    theirs = [own] if own else []
    if not theirs:
        btf_ids = dict.fromkeys(each.btf_id for each in programs() if each.btf_id)
        theirs = [codecs for codecs in map(codecs_of_loaded, btf_ids) if codecs is not None]
    for codecs in theirs:
        defined = _definition(codecs, info)
        if defined is not None:
            return ForeignTypes(info if own else _with_types(info, defined, codecs), codecs, defined.name)
    return ForeignTypes(info, theirs[0] if theirs else None, info.name or _section_name(info, own))


def _section_name(info: MapInfo, own: Codecs | None) -> str:
    """Returns the name of the data section that a map holds; empty if it is another map."""
    if own is None or not info.btf_value_type_id:
        return ""
    value = own.btf.type(info.btf_value_type_id)
    return value.name if value.kind is Kind.DATASEC else ""


def _may_have_types(info: MapInfo) -> bool:
    """Returns whether a program's BTF may have types that the kernel does not have for the map."""
    return info.type in BUFFERS | _UNTYPED


def _definition(codecs: Codecs, info: MapInfo) -> MapDefinition | None:
    """Returns the definition of a map, if only one fits."""
    defined = map_definitions(codecs.btf)
    if info.name:
        found = [d for d in defined if d.fits(info.name, int(info.type))]
    else:
        found = [d for d in defined if _has_shape(d, codecs, info)]
    return found[0] if len(found) == 1 else None


def _has_shape(defined: MapDefinition, codecs: Codecs, info: MapInfo) -> bool:
    """Returns whether a map without a name has the type, the sizes and the number of entries of a
    definition.
    """
    sizes = {
        part: codecs.get(type_id).size if type_id else defined.numbers.get(f"{part}_size", 0)
        for part, type_id in (("key", defined.key_type), ("value", defined.value_type))
    }
    if info.type in BUFFERS:  # the types are those of records
        sizes = {"key": info.key_size, "value": info.value_size}
    return (
        defined.numbers.get("type") == int(info.type)
        and (sizes["key"], sizes["value"]) == (info.key_size, info.value_size)
        and defined.numbers.get("max_entries", info.max_entries) == info.max_entries
    )


def _with_types(info: MapInfo, defined: MapDefinition, codecs: Codecs) -> MapInfo:
    """Returns the attributes with the definition's types, where their sizes are those of the kernel."""
    is_buffer = info.type in BUFFERS
    sizes = {"key": info.key_size, "value": None if is_buffer else info.value_size}
    types = {"key": defined.key_type, "value": defined.value_type}
    for part, size in sizes.items():
        if types[part] and size is not None and codecs.get(types[part]).size != size:
            types[part] = 0
    return replace(info, btf_key_type_id=types["key"], btf_value_type_id=types["value"])


def codecs_of_loaded(btf_id: int) -> Codecs | None:
    """Returns the types of a program or map; None if it is gone. Raises `MapError`."""
    try:
        return load_codecs(btf_id)
    except MapError as e:
        if e.errno != errno.ENOENT:
            raise
        return None
