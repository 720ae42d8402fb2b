"""Types and full names of maps that another process made, from the BTF of the map or of its programs.

The kernel has the types of a map's keys and values, but none of a buffer's records, and 15 characters of its
name. The BTF of a program that uses the map has the types, and the map's definition.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.btf.map_definitions import MapDefinition, map_definitions
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
    if own is not None and not is_cut(info.name):
        return ForeignTypes(info, own, info.name)
    if own is None and not is_cut(info.name) and not _may_have_types(info):
        return ForeignTypes(info, None, info.name)
    theirs = [own] if own else []
    if not theirs:
        btf_ids = dict.fromkeys(each.btf_id for each in programs() if each.btf_id)
        theirs = [codecs for codecs in map(codecs_of_loaded, btf_ids) if codecs is not None]
    for codecs in theirs:
        defined = _definition(codecs, info)
        if defined is not None:
            return ForeignTypes(info if own else _with_types(info, defined, codecs), codecs, defined.name)
    return ForeignTypes(info, theirs[0] if theirs else None, info.name)


def _may_have_types(info: MapInfo) -> bool:
    """Whether a program's BTF may have types that the kernel does not have for the map."""
    return info.type in BUFFERS | _UNTYPED


def _definition(codecs: Codecs, info: MapInfo) -> MapDefinition | None:
    """Returns the definition of a map, if only one fits."""
    found = [d for d in map_definitions(codecs.btf) if d.fits(info.name, int(info.type), info.max_entries)]
    return found[0] if len(found) == 1 else None


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
