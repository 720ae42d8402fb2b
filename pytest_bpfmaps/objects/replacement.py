"""Replaces a loaded object by the counting object of the same source.

The plain object is loaded first, and the test gets its result. Then the counting object is loaded with the
same settings. When it is refused, the plain one stays.
"""

from __future__ import annotations

from collections.abc import Iterator
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


class Replacement:
    """Loads the object at `path` instead of `opened`, which has its settings and is not loaded yet.

    Raises `BpfError` when the object can't be opened, or refuses a setting.
    """

    def __init__(self, opened: OpenedObject, path: Path) -> None:
        self._opened = opened
        self.refusal: BpfError | None = None
        """Why the plain object stayed, after `swap`."""
        self._other = _twin(opened, path)
        # only one arena can be mapped at an address, so the objects are loaded one after the other
        alone = any(spec.type == MapType.ARENA for spec in opened.maps)
        self._again = _twin(opened, opened.path) if alone else None

    def swap(self, loaded: LoadedObject) -> LoadedObject:
        """Returns the counting object. When it is refused, returns `loaded`, or a new object like it."""
        stats = {program.name: program.verifier for program in loaded.programs}
        if self._again is not None:
            loaded.close()
        used = self._other
        try:
            made = self._other.load()
        except BpfError as e:
            self.refusal = e
            if self._again is None:
                return loaded
            used, made = self._again, self._again.load()
        for program in made.programs:
            program.verified_as(stats[program.name])
        loaded.close()
        self._hand_over(used)
        return made

    def _hand_over(self, used: OpenedObject) -> None:
        """Makes the opened object's parts, which a test may hold, refer to the object that is loaded."""
        maps, programs = items_of(used.maps), items_of(used.programs)
        for name, spec in items_of(self._opened.maps).items():
            spec.handle = maps[name].handle if name in maps else ffi.NULL
        for program in self._opened.programs:
            program.handle = programs[program.name].handle

    def close(self) -> None:
        """Frees the opened objects that are not used. Safe to call again."""
        for each in (self._other, self._again):
            if each is not None:
                each.close()


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
    """Copies the values of variables before the load. It finds each by its name: the offsets may differ."""
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
    """Yields a key for each variable (section, name, number among equal names), offset and size in bytes."""
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
