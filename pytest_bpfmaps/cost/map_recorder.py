"""Looks at the maps of each object when a test ends: an `Observer` of objects."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from pytest_bpfmaps.cost.costs import INLINE, object_name
from pytest_bpfmaps.cost.map_usage import REASONS, Key, Usage, Usages, add, plain
from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.events.ring_fill import keep_peaks, ring_fill, take_peak
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.update_counts import ALL_COUNTED, NOTHING, Counts, UpdateCounts
from pytest_bpfmaps.maps import Map
from pytest_bpfmaps.maps.families.array import ArrayMap
from pytest_bpfmaps.maps.fill import ArrayValues, entries, has_constant_memory, memory
from pytest_bpfmaps.objects import LoadedObject, OpenedObject
from pytest_bpfmaps.objects.observer import Observer

_RB_OVERWRITE = 1 << 19


class _Watched:
    """A map of an open object: its identity, and how to see whether it has changed since the last look."""

    def __init__(self, the_map: Map) -> None:
        self.map, self.id, self.name = the_map, the_map.id, the_map.name
        self.values = ArrayValues(the_map) if isinstance(the_map, ArrayMap) else None
        self._is_counted = the_map.type in ALL_COUNTED

    def is_unchanged(self, counts: Counts | str) -> bool:
        """Returns whether another look can't find anything new; `counts` are the updates since the last one.

        Without an update, a hash has at most as many entries as before, and a ring buffer no new record. The
        values of an array change without an update, so they are compared.
        """
        if self.values is not None:
            has_changed = self.values.changed()
            return not has_changed and (counts is NOTHING or isinstance(counts, str))
        return self._is_counted and counts is NOTHING

    def entries(self) -> int | str:
        """Returns how many entries it has, or why that is unknown. Call `is_unchanged` before."""
        return self.values.entries() if self.values is not None else entries(self.map)


class MapRecorder(Observer[OpenedObject, LoadedObject]):
    """Keeps what it sees until `take` is called. `close` ends the counting of updates.

    `kernel` is the name of the kernel of this process; it may be set later. The names of sources are relative
    to the folder `root`. `test` is the test that runs. `expected` has the most entries that the test expects
    in each map, by the map's name. What would tell nothing new about a map is left out: in an emulated guest,
    each look and each figure of a report takes long.
    """

    def __init__(self, kernel: str, root: Path | None = None) -> None:
        self.kernel, self.test, self._root = kernel, "", root
        self._opened = ""
        self._names: weakref.WeakKeyDictionary[LoadedObject, str] = weakref.WeakKeyDictionary()
        self.expected: Mapping[str, int] = {}
        self._seen: set[str] = set()
        self._open: weakref.WeakKeyDictionary[LoadedObject, list[_Watched]] = weakref.WeakKeyDictionary()
        self._counts = UpdateCounts()
        self._usages: Usages = {}
        self._told: Usages = {}  # the sum of all that `take` has returned, or will return
        self._memory: dict[tuple[object, ...], int | None] = {}
        keep_peaks()

    def before_load(self, opened: OpenedObject) -> Callable[[LoadedObject], LoadedObject] | None:
        """Keeps the name; the maps do not exist yet."""
        self._opened = object_name(opened.name, opened.sources, self._root)
        return None

    def loaded(self, loaded: LoadedObject) -> None:
        """Begins to count the updates of the object's maps."""
        self._names[loaded] = self._opened or loaded.name
        self._open[loaded] = [_Watched(each) for each in loaded.maps]
        for each in loaded.maps:
            self._counts.watch(each.id, each.type)

    def closing(self, loaded: LoadedObject) -> None:
        """Looks at the maps of an object that is about to be closed."""
        watched = self._open.pop(loaded, [])
        self._look(loaded, watched)
        for each in watched:
            self._counts.release(each.id)

    def look_at_open(self) -> None:
        """Looks at the maps of all objects that stay open for other tests."""
        for loaded, watched in list(self._open.items()):
            self._look(loaded, watched)

    def _look(self, loaded: LoadedObject, watched: list[_Watched]) -> None:
        if not watched:
            return
        name = self.test if loaded.name == INLINE and self.test else self._names[loaded]
        counts = self._counts.take(each.id for each in watched)
        for each in watched:
            key, new = Key(name, each.name, self.kernel), counts[each.id]
            if each.is_unchanged(new) and key in self._told and each.name not in self.expected:
                continue
            usage = self._usage(each, new)
            if add(self._told, key, usage.copy()):
                add(self._usages, key, usage)

    def _usage(self, watched: _Watched, counts: Counts | str) -> Usage:
        the_map = watched.map
        usage = Usage(str(the_map.type), the_map.max_entries, self.test, memory=self._memory_of(the_map))
        if the_map.type is MapType.RINGBUF:
            _look_at_ring(usage, the_map)
        else:
            found = watched.entries()
            usage.entries, usage.unknown = (found, "") if isinstance(found, int) else (None, found)
        self._add_counts(usage, counts)
        self._compare(usage, the_map.name)
        return usage

    def _memory_of(self, the_map: Map) -> int | None:
        """Returns the bytes of a map. Maps that are declared alike have the same, for most types."""
        if not has_constant_memory(the_map):
            return memory(the_map.fd)
        sizes = the_map.key_size, the_map.value_size, the_map.max_entries
        alike = (the_map.type, the_map.flags, *sizes)
        if alike not in self._memory:
            self._memory[alike] = memory(the_map.fd)
        return self._memory[alike]

    def _add_counts(self, usage: Usage, counts: Counts | str) -> None:
        if isinstance(counts, str):
            usage.not_counted = counts
            return
        usage.failed = {why: getattr(counts, why) for why in REASONS}
        usage.updated = counts.done > 0
        if counts.failed:
            usage.losing[self.test] = counts.failed

    def _compare(self, usage: Usage, name: str) -> None:
        if name not in self.expected:
            return
        self._seen.add(name)
        most = self.expected[name]
        if usage.entries is not None and usage.entries > most:
            usage.beyond[self.test] = f"{usage.entries:,} entries, and the test expects {most:,} at most"

    def begin(self, test: str, expected: Mapping[str, int]) -> None:
        """Sets the test that runs from now on, and the most entries that it expects."""
        self.test, self.expected = test, expected
        self._seen.clear()

    def take(self) -> dict[str, Any]:
        """Returns what was seen since the last call, as plain values."""
        absent = [name for name in self.expected if name not in self._seen]
        notes = [f"bpf_map_entries of {self.test}: no map {name!r} was loaded" for name in absent]
        rows, self._usages, self.expected = plain(self._usages), {}, {}
        return {"rows": rows, "notes": notes} if rows or notes else {}

    def close(self) -> None:
        """Ends the counting. Safe to call again."""
        self._counts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _look_at_ring(usage: Usage, the_map: Map) -> None:
    peak = take_peak(the_map.id)
    try:
        fill = ring_fill(
            the_map.fd, the_map.max_entries, str(the_map), overwrites=bool(the_map.flags & _RB_OVERWRITE)
        )
    except MapError as error:
        usage.unknown = f"its memory can't be mapped: {error.why}"
        return
    usage.entries, usage.produced = max(fill.unread, peak.unread), fill.produced
    usage.was_full = peak.was_full or fill.is_full
