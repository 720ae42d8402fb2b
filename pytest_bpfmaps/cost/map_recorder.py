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
from pytest_bpfmaps.kernel.update_counts import Counts, UpdateCounts
from pytest_bpfmaps.maps import Map
from pytest_bpfmaps.maps.fill import entries, memory
from pytest_bpfmaps.objects import LoadedObject, OpenedObject
from pytest_bpfmaps.objects.observer import Observer

_RB_OVERWRITE = 1 << 19


class MapRecorder(Observer[OpenedObject, LoadedObject]):
    """Keeps what it sees until `take` is called. `close` ends the counting of updates.

    `kernel` is the name of the kernel of this process; it may be set later. The names of sources are relative
    to the folder `root`. `test` is the test that runs. `expected` has the most entries that the test expects
    in each map, by the map's name.
    """

    def __init__(self, kernel: str, root: Path | None = None) -> None:
        self.kernel, self.test, self._root = kernel, "", root
        self._opened = ""
        self._names: weakref.WeakKeyDictionary[LoadedObject, str] = weakref.WeakKeyDictionary()
        self.expected: Mapping[str, int] = {}
        self._seen: set[str] = set()
        self._open: weakref.WeakSet[LoadedObject] = weakref.WeakSet()
        self._counts = UpdateCounts()
        self._usages: Usages = {}
        keep_peaks()

    def before_load(self, opened: OpenedObject) -> Callable[[LoadedObject], LoadedObject] | None:
        """Keeps the name; the maps do not exist yet."""
        self._opened = object_name(opened.name, opened.sources, self._root)
        return None

    def loaded(self, loaded: LoadedObject) -> None:
        """Begins to count the updates of the object's maps."""
        self._open.add(loaded)
        self._names[loaded] = self._opened or loaded.name
        for each in loaded.maps:
            self._counts.watch(each.id, each.type)

    def closing(self, loaded: LoadedObject) -> None:
        """Looks at the maps of an object that is about to be closed."""
        if loaded in self._open:
            self._open.discard(loaded)
            self._look(loaded)

    def look_at_open(self) -> None:
        """Looks at the maps of all objects that stay open for other tests."""
        for loaded in list(self._open):
            self._look(loaded)
            for each in loaded.maps:
                self._counts.watch(each.id, each.type)

    def _look(self, loaded: LoadedObject) -> None:
        name = self.test if loaded.name == INLINE and self.test else self._names[loaded]
        for each in loaded.maps:
            add(self._usages, Key(name, each.name, self.kernel), self._usage(each))

    def _usage(self, the_map: Map) -> Usage:
        usage = Usage(str(the_map.type), the_map.max_entries, self.test, memory=memory(the_map.fd))
        if the_map.type is MapType.RINGBUF:
            _look_at_ring(usage, the_map)
        else:
            found = entries(the_map)
            usage.entries, usage.unknown = (found, "") if isinstance(found, int) else (None, found)
        self._add_counts(usage, self._counts.take(the_map.id))
        self._compare(usage, the_map.name)
        return usage

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
