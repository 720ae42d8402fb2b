"""Warns of uses of maps in an object's instructions for which there is a better way."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf.line_info import SourceLine
from pytest_bpfmaps.cost.map_reading import FunctionReading, read_functions, variable_at
from pytest_bpfmaps.cost.register_values import LOOKUP, UPDATE, Access
from pytest_bpfmaps.errors import (
    LostAddWarning,
    MapUseWarning,
    SharedCounterWarning,
    SmallKeysWarning,
    UncheckedUpdateWarning,
    ValueSizeWarning,
)
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.objects import LoadedObject, OpenedObject
from pytest_bpfmaps.objects.collection import items_of
from pytest_bpfmaps.objects.observer import Observer

_CAN_BE_FULL = {MapType.HASH, MapType.PERCPU_HASH, MapType.LPM_TRIE, MapType.QUEUE, MapType.STACK}
_HAVE_MAPS = {MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS}  # a lookup gives an inner map, not a value
_SHARED = {MapType.HASH, MapType.LRU_HASH, MapType.ARRAY, MapType.LPM_TRIE}
# programs that user space runs, or that do not run on several CPUs at once
_ALONE = ("iter", "syscall", "struct_ops", "freplace", "ext")
_MOST_SMALL = 1024  # hashes with more keys are not reported


@dataclass(frozen=True, slots=True)
class MapFacts:
    """What a map is declared as; sizes in bytes."""

    type: MapType | int
    key_size: int
    value_size: int


@dataclass(frozen=True, slots=True)
class MapUse:
    """A place that a warning is about. `what` says what is wrong there, `instead` what to write."""

    category: type[MapUseWarning]
    file: str
    line: int
    what: str
    instead: str

    def __str__(self) -> str:
        return f"{self.what} -> {self.instead}"


def uses_of(path: Path, maps: Mapping[str, MapFacts]) -> list[MapUse]:
    """Returns the places of an object to warn about. A place is left out unless its instructions prove it."""
    functions = read_functions(path, {name: facts.key_size for name, facts in maps.items()})
    found = [
        *_unchecked(functions, maps),
        *_lost_adds(path, functions, maps),
        *_too_large(functions, maps),
        *_small_keys(functions, maps),
        *_shared_counters(functions, maps),
    ]
    return list(dict.fromkeys(found))


def _use(category: type[MapUseWarning], line: SourceLine | None, what: str, instead: str) -> Iterator[MapUse]:
    if line is not None:  # without a line, the user could not find the place
        yield MapUse(category, line.file, line.line, f"{what}: {line.text}", instead)


def _unchecked(functions: Sequence[FunctionReading], maps: Mapping[str, MapFacts]) -> Iterator[MapUse]:
    for function in functions:
        for access in function.unread:
            name = access.place[1]
            if name in maps and maps[name].type in _CAN_BE_FULL:
                yield from _use(
                    UncheckedUpdateWarning,
                    function.line_of(access),
                    f"nobody sees whether this update of map {name!r} fails, as it does on a full map",
                    "write if (bpf_map_update_elem(…) != 0), and count what failed",
                )


def _lost_adds(
    path: Path, functions: Sequence[FunctionReading], maps: Mapping[str, MapFacts]
) -> Iterator[MapUse]:
    for function in functions:
        if function.reading.locks or function.is_callback or _runs_alone(function, functions):
            continue
        for access in function.reading.accesses.values():
            if access.what != "lost add":
                continue
            where = _shared_place(path, access, maps)
            if where:
                instead = "write __atomic_fetch_add(&…, …, __ATOMIC_RELAXED)"
                if access.place[0] == "value":
                    instead += ", or declare a per-CPU map"
                yield from _use(
                    LostAddWarning,
                    function.line_of(access),
                    f"this adds to {where} in two steps, and is lost when another CPU adds at the same time",
                    instead,
                )


def _runs_alone(function: FunctionReading, functions: Sequence[FunctionReading]) -> bool:
    sections = {each.section for each in functions} if function.section == ".text" else {function.section}
    return any(section.lstrip("?").split("/")[0].split(".")[0] in _ALONE for section in sections)


def _shared_place(path: Path, access: Access, maps: Mapping[str, MapFacts]) -> str:
    """Returns what several CPUs add to, as text; empty if that is not certain."""
    kind, name = access.place[:2]
    if kind == "global":
        variable = variable_at(path, name, access.place[2])
        return f"the global variable {variable!r}" if variable else ""
    key = access.place[4]
    if name not in maps or maps[name].type not in _SHARED or key is None or key == "own":
        return ""
    return f"a value of map {name!r}, which all CPUs share,"


def _too_large(functions: Sequence[FunctionReading], maps: Mapping[str, MapFacts]) -> Iterator[MapUse]:
    for function in functions:
        for access in function.reading.accesses.values():
            if access.place[0] != "value" or access.place[1] not in maps:
                continue
            if maps[access.place[1]].type in _HAVE_MAPS:
                continue
            name, offset = access.place[1], access.place[2]
            size = maps[name].value_size
            if size and (offset < 0 or offset + access.size > size):
                yield from _use(
                    ValueSizeWarning,
                    function.line_of(access),
                    f"this uses bytes {offset} to {offset + access.size - 1} of a value of map {name!r}, "
                    f"which has {size}",
                    "declare the type that the program uses: __type(value, …)",
                )


def _accesses(functions: Iterable[FunctionReading], name: str) -> list[tuple[FunctionReading, Access]]:
    return [
        (function, access)
        for function in functions
        for access in function.reading.accesses.values()
        if access.place[0] in ("map", "value") and access.place[1] == name
    ]


def _is_followed(functions: Iterable[FunctionReading], name: str) -> bool:
    """Returns whether every use of a map is known."""
    return not any({None, name} & function.reading.escaped for function in functions)


def _small_keys(functions: Sequence[FunctionReading], maps: Mapping[str, MapFacts]) -> Iterator[MapUse]:
    for name, facts in maps.items():
        found = [(f, a) for f, a in _accesses(functions, name) if a.place[0] == "map"]
        updates = [(f, a) for f, a in found if a.what == UPDATE]
        if facts.type is not MapType.HASH or facts.key_size != 4 or not updates:
            continue
        keys = {access.key for _, access in found}
        if not _is_followed(functions, name) or not all(type(key) is int for key in keys):
            continue
        if any(access.what not in (LOOKUP, UPDATE) for _, access in found) or len(keys) > _MOST_SMALL:
            continue
        if keys == set(range(len(keys))):
            function, access = updates[0]
            yield from _use(
                SmallKeysWarning,
                function.line_of(access),
                f"all keys of the hash {name!r} are 0 to {len(keys) - 1}, and none is deleted",
                f"declare BPF_MAP_TYPE_ARRAY with max_entries {len(keys)}: it is faster and can't be full",
            )


def _shared_counters(functions: Sequence[FunctionReading], maps: Mapping[str, MapFacts]) -> Iterator[MapUse]:
    if any(function.reading.unknown_pointers for function in functions):
        return
    for name, facts in maps.items():
        found = _accesses(functions, name)
        adds = [(f, a) for f, a in found if a.what == "add" and not _runs_alone(f, functions)]
        only = all(a.what == LOOKUP if a.place[0] == "map" else a.what == "add" for _, a in found)
        if facts.type is not MapType.ARRAY or not adds or not only or not _is_followed(functions, name):
            continue
        function, access = adds[0]
        if access.place[4] is None or access.place[4] == "own":
            continue
        yield from _use(
            SharedCounterWarning,
            function.line_of(access),
            f"all CPUs add to one value of map {name!r}, which no program reads: they wait for each other",
            "declare BPF_MAP_TYPE_PERCPU_ARRAY, and add the values up when you read them",
        )


_told: set[MapUse] = set()


def warn(uses: Iterable[MapUse], allowed: Callable[[str], bool]) -> None:
    """Gives a warning for each place of which this process has not warned yet."""
    for use in uses:
        if use in _told or allowed(f"{use.category.__name__}: {use}"):
            continue
        warnings.warn_explicit(str(use), use.category, use.file, use.line, module="pytest_bpfmaps")
        _told.add(use)  # if warnings are errors, this is not reached, and the next load raises again


class MapReader(Observer[OpenedObject, LoadedObject]):
    """Reads each object before it is loaded, and warns: an `Observer` of objects.

    `allowed` are patterns of warnings that are left out, and `of_test` those of the test that runs. A pattern
    is searched in ``CLASS: TEXT``.
    """

    def __init__(self, allowed: Sequence[re.Pattern[str]] = ()) -> None:
        self.kernel = ""
        self._allowed = tuple(allowed)
        self.of_test: Sequence[re.Pattern[str]] = ()
        self._known: dict[tuple[Any, ...], list[MapUse]] = {}

    def before_load(self, opened: OpenedObject) -> Callable[[LoadedObject], LoadedObject] | None:
        """Reads the object. Programs that this test does not load count, too: another test may load them."""
        maps = {
            name: MapFacts(spec.type, spec.key_size, spec.value_size)
            for name, spec in items_of(opened.maps).items()
        }
        key = opened.path, opened.path.stat().st_mtime_ns, tuple(sorted(maps.items(), key=lambda one: one[0]))
        if key not in self._known:
            self._known[key] = uses_of(opened.path, maps)
        warn(self._known[key], self._allows)
        return None

    def _allows(self, text: str) -> bool:
        return any(pattern.search(text) for pattern in (*self._allowed, *self.of_test))

    def loaded(self, loaded: LoadedObject) -> None:
        """Does nothing: the object was read before."""

    def closing(self, loaded: LoadedObject) -> None:
        """Does nothing: the object was read before."""
