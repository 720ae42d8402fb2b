"""Shows maps, variables and programs of a failing test: how full a map is, its first elements, the runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from pytest_bpfmaps.btf import Record
from pytest_bpfmaps.errors import BpfError, ClosedError, MapKeyError
from pytest_bpfmaps.maps.families.array import ArrayMap
from pytest_bpfmaps.maps.families.hash import HashMap
from pytest_bpfmaps.report.assertions import Text, in_order
from pytest_bpfmaps.report.folded_lines import folded
from pytest_bpfmaps.report.map_changes import UNCHANGED, Snapshots, changes
from pytest_bpfmaps.report.program_runs import Runs, program_lines

_MOST = 20  # elements of a map
_EMPTY, _ZERO = "empty", "all are zero"
_SEARCHED = 1 << 16  # places of an array in which elements that are not zero are looked for
_SORTED = 1000  # elements of a map that is shown in the order of its keys
_WIDTH = 100  # characters of a key or a value, at least
_FORMAT = "____fmt"  # a part of the name that bpf_printk gives to its format
_CHARACTERS = 2000  # of all that is shown of a map: a few elements are shown whole


def section(objects: Iterable[Any], before: Snapshots, runs_before: Runs) -> str:
    """Returns the text of hashes and arrays, global variables and programs. A closed object is left out.

    `before` has the elements, at the beginning of the test, of maps that were loaded before it.
    `runs_before` has how often programs had run by then.
    """
    lines: list[str] = []
    for each in objects:
        lines += _maps(each, before)
        lines += _variables(each)
        lines += program_lines(each, runs_before)
    return "\n".join(lines)


def _maps(loaded: Any, before: Snapshots) -> Iterator[str]:
    """Gives the lines of an object's maps. Many maps without elements share one line."""
    shown = {each: list(_lines(each, before)) for each in loaded.maps}
    empty = [each for each, lines in shown.items() if _is_empty(each, lines)]
    yield from folded(shown, empty, f"maps of {loaded.name} are empty or all zero")


def _is_empty(the_map: Any, lines: list[str]) -> bool:
    """Returns whether these lines say that a map has no elements, and that the test changed none."""
    first = [f"{the_map}: {count}" for count in (_EMPTY, _ZERO)]
    return lines[:1] in ([each] for each in first) and lines[1:] in ([], [UNCHANGED])


def _lines(the_map: Any, before: Snapshots) -> Iterator[str]:
    if not isinstance(the_map, HashMap):
        return
    try:
        shown, count = _array(the_map) if isinstance(the_map, ArrayMap) else _elements(the_map)
    except ClosedError:
        return
    except (BpfError, OSError) as error:
        yield f"{the_map}: {error}"
        return
    text = Text(None, max(_WIDTH, _CHARACTERS // (len(shown) or 1)))
    yield f"{the_map}: {count}" + (":" if shown else "")
    if the_map.id in before:
        yield from changes(before[the_map.id], the_map.snapshot())
    yield from (f"  {text.of(key)}: {text.of(value)}" for key, value in shown[:_MOST])
    if len(shown) > _MOST:
        yield "  …"


def _variables(loaded: Any) -> Iterator[str]:
    """Gives lines about an object's global variables that are not zero, without formats of bpf_printk."""
    names = [name for name in loaded.globals if _FORMAT not in name]
    try:
        values = {name: loaded.globals[name] for name in names}
    except (BpfError, OSError):  # the object is closed
        return
    found = [name for name in names if not _is_zero(values[name])]
    if names:
        yield f"variables of {loaded.name}: {'not zero are:' if found else 'all are zero'}"
    text = Text(None, max(_WIDTH, _CHARACTERS // (len(found) or 1)))
    yield from (f"  {name}: {text.of(values[name])}" for name in found[:_MOST])
    if len(found) > _MOST:
        yield "  …"


def _array(the_map: Any) -> tuple[list[tuple[Any, Any]], str]:
    """Returns the first elements that are not zero, one more than are shown, and a text about them."""
    places = islice(the_map.snapshot().items(), _SEARCHED)
    found = list(islice(((index, value) for index, value in places if not _is_zero(value)), _MOST + 1))
    where = "" if the_map.max_entries <= _SEARCHED else f" among the first {_SEARCHED}"
    return found, ("not zero are" if found else _ZERO) + where


def _elements(the_map: Any) -> tuple[list[tuple[Any, Any]], str]:
    """Returns the first elements, one more than are shown, and a text about how many there are."""
    if the_map.max_entries <= _SEARCHED:
        snapshot = the_map.snapshot()
        keys = in_order(list(snapshot)) if len(snapshot) <= _SORTED else list(islice(snapshot, _MOST + 1))
        found = [(key, snapshot[key]) for key in keys[: _MOST + 1]]
        count = str(len(snapshot))
    else:  # reading a million elements takes seconds in an emulated guest
        found = list(_walk(the_map))
        count = str(len(found)) if len(found) <= _MOST else f"more than {_MOST}"
    return found, f"{count} of {the_map.max_entries} entries" if found else _EMPTY


def _walk(the_map: Any) -> Iterator[tuple[Any, Any]]:
    key = None
    for _ in range(_MOST + 1):
        try:
            key = the_map.get_next_key(key)
        except MapKeyError:  # that was the last one
            return
        with contextlib.suppress(MapKeyError):  # a program has removed it
            yield key, the_map[key]


def _is_zero(value: Any) -> bool:
    if isinstance(value, Record):
        return not any(bytes(value))
    if isinstance(value, list | tuple):
        return all(map(_is_zero, value))
    return not value or (isinstance(value, bytes) and not any(value))
