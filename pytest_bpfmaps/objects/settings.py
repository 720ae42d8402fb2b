"""Copies the settings of an object that is opened, or was loaded, to another one of the same source."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_bpfmaps.btf import Codecs, Kind
from pytest_bpfmaps.errors import LoadError
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.objects.collection import Named, items_of
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.programs.program_spec import ProgramSpec

Parts = tuple[Named[MapSpec], Named[ProgramSpec], Codecs | None]
"""The maps, the programs and the types of an object."""


def check_by_name(argument: str, given: Any, of: str) -> None:
    """Raises `LoadError` for an argument of `bpf.load` that is no mapping of names; None is one."""
    if given is None or isinstance(given, Mapping):
        return
    raise LoadError(
        "cannot load",
        on=of,
        why=f"{argument}= is {type(given).__name__}, not a dict",
        fix=f"give a dict with names: {argument}={{'NAME': …}}",
        errno=errno.EINVAL,
    )


def copy_settings(mine: Parts, theirs: Parts) -> None:
    """Copies what was set of maps and programs, and the values of variables.

    A map that the other object lacks is left out. Raises `BpfError` when the other object refuses a setting.
    """
    maps, other_maps = items_of(mine[0]), items_of(theirs[0])
    for name, spec in maps.items():
        if name in other_maps:
            other_maps[name].set_as(spec)
    for program in mine[1]:
        theirs[1][program.name].set_as(program)
    _copy_variables(maps, other_maps, mine[2], theirs[2])


def _copy_variables(
    mine: dict[str, MapSpec], theirs: dict[str, MapSpec], codecs: Codecs | None, other: Codecs | None
) -> None:
    """Copies the values that variables have before the load. It finds each by name: its place may differ."""
    if codecs is None or other is None:
        return
    places = {key: (at, size) for key, at, size in _variables(other)}
    for key, at, size in _variables(codecs):
        section = key[0]
        if key not in places or section not in mine or section not in theirs or section == ".kconfig":
            continue
        source, target = _bytes(mine[section]), _bytes(theirs[section])
        start, room = places[key]
        if source is not None and target is not None and room == size:
            target[start : start + size] = source[at : at + size]


def _variables(codecs: Codecs) -> Iterator[tuple[tuple[str, str, int], int, int]]:
    """Yields (section, name, number among those of that name), offset and size in bytes of each variable."""
    for section in codecs.btf.of_kind(Kind.DATASEC):
        seen: dict[str, int] = {}
        for variable in section.variables():
            nth = seen[variable.name] = seen.get(variable.name, -1) + 1
            yield (section.name, variable.name, nth), variable.offset, variable.size


def _bytes(spec: MapSpec) -> Any:
    size = ffi.new("size_t *")
    address = lib.bpf_map__initial_value(spec.handle, size)
    return None if address == ffi.NULL else ffi.buffer(address, size[0])
