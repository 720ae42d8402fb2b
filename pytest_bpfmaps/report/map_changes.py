"""Finds what a test changed in the maps of objects that were loaded before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pytest_bpfmaps.errors import BpfError, ClosedError
from pytest_bpfmaps.maps.families.hash import HashMap
from pytest_bpfmaps.report.assertions import Text, in_order

LARGEST = 1024  # places of a map that is read before each test
SHOWN = 20  # changes of a map
_WIDTH = 100  # characters of a key or a value
_SORTED = 1000  # changes that are shown in the order of their keys

UNCHANGED = "  no change since the test began"

Snapshots = dict[int, dict[Any, Any]]


def snapshots(objects: Iterable[Any]) -> Snapshots:
    """Returns the elements of all small hashes and arrays of these objects, by the maps' ids.

    They are still packed: they are decoded when a failing test shows them.
    """
    found: Snapshots = {}
    for one in (one for each in objects for one in each.maps):
        if isinstance(one, HashMap) and one.max_entries <= LARGEST:
            try:
                found[one.id] = one.packed_snapshot()
            except (ClosedError, BpfError, OSError):  # a failing test says so
                continue
    return found


def changes(before: Mapping[Any, Any], now: Mapping[Any, Any]) -> Iterator[str]:
    """Gives lines about the keys that were added or are gone, and about other values."""
    added = [key for key in now if key not in before]
    gone = [key for key in before if key not in now]
    other = [key for key in now if key in before and now[key] != before[key]]
    if not (added or gone or other):
        yield UNCHANGED
        return
    kinds = ((added, "added"), (gone, "gone"), (other, "changed"))
    yield f"  since the test began: {', '.join(f'{len(keys)} {what}' for keys, what in kinds if keys)}"
    text, left = Text(None, _WIDTH), SHOWN
    for keys, what in kinds:
        for key in islice(in_order(keys) if len(keys) <= _SORTED else keys, left):
            left -= 1
            was, is_now = text.of(before.get(key)), text.of(now.get(key))
            value = {"added": is_now, "gone": was, "changed": f"{was} -> {is_now}"}[what]
            yield f"    {what} {text.of(key)}: {value}"
    if len(added) + len(gone) + len(other) > SHOWN:
        yield "    …"
