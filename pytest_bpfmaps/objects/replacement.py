"""Puts an object that counts what of it runs in the place of one that is loaded.

The plain object is loaded first, and its verdict is the one that counts. Then the other is, with the same
settings; where it is refused, the plain one stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf import Codecs, Kind
from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.maps import MapType
from pytest_bpfmaps.objects.collection import items_of
from pytest_bpfmaps.objects.loaded import LoadedObject
from pytest_bpfmaps.objects.map_spec import MapSpec
from pytest_bpfmaps.objects.opened import OpenedObject


def replaced(opened: OpenedObject, loaded: LoadedObject, path: Path) -> tuple[LoadedObject, BpfError | None]:
    """Loads the object at `path` instead of `loaded`, with the settings of `opened`, which `loaded` came of.

    Returns the object that is in the kernel now. When the other object is refused, that is `loaded` or a new
    object like it, and the error says why. Raises `BpfError` when the other object can't be opened, or
    refuses a setting; then `loaded` stays as it is.
    """
    stats = {program.name: program.verifier for program in loaded.programs}
    with ExitStack() as stack:
        other = stack.enter_context(_twin(opened, path))
        # only one arena can be mapped at an address, so the objects are loaded one after the other
        alone = any(spec.type == MapType.ARENA for spec in opened.maps)
        again = stack.enter_context(_twin(opened, opened.path)) if alone else None
        if again is not None:
            loaded.close()
        refusal = None
        try:
            used, made = other, other.load()
        except BpfError as e:
            if again is None:
                return loaded, e
            used, made, refusal = again, again.load(), e
        for program in made.programs:
            program.verified_as(stats[program.name])
        _hand_over(opened, used)
        loaded.close()
    return made, refusal


def _hand_over(opened: OpenedObject, used: OpenedObject) -> None:
    """Makes the opened object's parts, which a test may hold, refer to the object that is loaded."""
    maps, programs = items_of(used.maps), items_of(used.programs)
    for name, spec in items_of(opened.maps).items():
        spec.handle = maps[name].handle if name in maps else ffi.NULL
    for program in opened.programs:
        program.handle = programs[program.name].handle


def _twin(opened: OpenedObject, path: Path) -> OpenedObject:
    made = opened.opened_alike(path)
    try:
        mine, theirs = items_of(opened.maps), items_of(made.maps)
        for name, spec in mine.items():
            if name in theirs:
                theirs[name].set_as(spec)
        for program in opened.programs:
            made.programs[program.name].set_as(program)
        _copy_variables(mine, theirs, opened.attempt.codecs, made.attempt.codecs)
    except BaseException:
        made.close()
        raise
    return made


def _copy_variables(
    mine: dict[str, MapSpec], theirs: dict[str, MapSpec], codecs: Codecs | None, other: Codecs | None
) -> None:
    """The values that variables have before the load. Each is found by its name: it may lie elsewhere."""
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
    """Section, name, and a number among those of the same name; offset and size in bytes."""
    for section in codecs.btf:
        if section.kind is not Kind.DATASEC:
            continue
        seen: dict[str, int] = {}
        for variable in section.variables():
            nth = seen[variable.name] = seen.get(variable.name, -1) + 1
            yield (section.name, variable.name, nth), variable.offset, variable.size


def _bytes(spec: MapSpec) -> Any:
    size = ffi.new("size_t *")
    address = lib.bpf_map__initial_value(spec.handle, size)
    return None if address == ffi.NULL else ffi.buffer(address, size[0])
