"""How full the maps were in tests: one record for each map and kernel, and the findings of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pytest_bpfmaps.cost.costs import numbers_of

_RING, _LRU = "ringbuf", ("lru_hash", "lru_percpu_hash")
_ARRAYS = ("array", "percpu_array")
_SMALL = 10  # maps with fewer entries can't be used below a tenth
_PAGE = 4096  # no ring buffer is smaller


class Key(NamedTuple):
    """A map: the object's name, the map's name, and the kernel's name."""

    object: str
    map: str
    kernel: str


@dataclass(slots=True)
class Usage:
    """A map at the end of a test, or of several: the most entries, and the sum of the failed updates.

    `entries` is None if they could not be counted; `unknown` then says why. For a ring buffer, `entries` are
    the most unread bytes that a reader saw, and `produced` the bytes of all its records. `failed` counts
    failed updates by reason, None if they are unknown; then `not_counted` says why. `updated` tells whether
    any update succeeded. `test` is the test with the most entries, `losing` the tests whose updates failed,
    and `beyond` those that had more entries than they expected, each with a text.
    """

    type: str
    max_entries: int
    test: str
    entries: int | None = None
    unknown: str = ""
    memory: int | None = None
    was_full: bool = False
    produced: int = 0
    failed: dict[str, int] | None = None
    not_counted: str = ""
    updated: bool | None = None
    losing: dict[str, int] = field(default_factory=dict)
    beyond: dict[str, str] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether it had no room at the end of a test; arrays always have an element for each key."""
        if self.type in _ARRAYS:
            return False
        return self.was_full or (self.entries is not None and self.entries >= self.max_entries)

    def add(self, other: Usage) -> None:
        """Adds what another test found about the same map."""
        if (other.entries or 0) > (self.entries or 0) or self.entries is None:
            self.entries, self.test = other.entries, other.test if other.entries is not None else self.test
            self.max_entries = other.max_entries
        self.unknown = self.unknown or other.unknown
        self.memory = max(filter(None, (self.memory, other.memory)), default=None)
        self.was_full = self.was_full or other.was_full
        self.produced = max(self.produced, other.produced)
        if self.failed is None or other.failed is None:
            self.failed = None
            self.not_counted = self.not_counted or other.not_counted
        else:
            self.failed = {why: self.failed[why] + other.failed[why] for why in self.failed}
        self.updated = None if None in (self.updated, other.updated) else self.updated or other.updated
        for test, count in other.losing.items():
            self.losing[test] = self.losing.get(test, 0) + count
        self.beyond |= other.beyond

    def copy(self) -> Usage:
        """Returns a record that `add` may change."""
        return replace(
            self, failed=self.failed and {**self.failed}, losing={**self.losing}, beyond={**self.beyond}
        )


Usages = dict[Key, Usage]

REASONS = {
    "full": "it was full",
    "memory": "the kernel had no memory",
    "busy": "another program held its lock",
}


class Finding(NamedTuple):
    """What a table says about a map: how serious it is (0 is the worst), the text, and the test."""

    rank: int
    text: str
    test: str


def finding(usage: Usage) -> Finding | None:
    """Returns the most serious finding about a map; None if it was used as it should be."""
    if usage.failed and any(usage.failed.values()):
        return Finding(0, _lost(usage), max(usage.losing, key=lambda test: usage.losing[test]))
    if usage.is_full and usage.type in _LRU:
        return Finding(1, "full: the kernel evicts entries, and does not count them", usage.test)
    if usage.is_full and usage.failed is None:
        return Finding(1, "full; how much it lost is unknown", usage.test)
    if usage.beyond:
        test, text = next(iter(usage.beyond.items()))
        return Finding(2, text, test)
    return _little(usage)


def _lost(usage: Usage) -> str:
    failed = {why: count for why, count in (usage.failed or {}).items() if count}
    texts = (f"{count:,} {_noun(usage, count)}, {REASONS[why]}" for why, count in failed.items())
    return f"lost data: {'; '.join(texts)}"


def _noun(usage: Usage, count: int) -> str:
    what = "record" if usage.type == _RING else "update"
    return f"{what}{'s' * (count != 1)}"


def _little(usage: Usage) -> Finding | None:
    if usage.entries is None:
        return None
    if usage.entries == 0:
        if usage.type == _RING:
            return None if usage.produced else Finding(3, "never used: no record was sent", "")
        if usage.type in _ARRAYS:
            return Finding(3, "all zero at the end of each test", "")
        if usage.updated is False:
            return Finding(3, "never used: no entry was made", "")
        return Finding(3, "empty at the end of each test", "")
    smallest = _PAGE if usage.type == _RING else _SMALL
    if usage.max_entries > smallest and usage.entries * 10 < usage.max_entries:
        return Finding(4, "used below a tenth", usage.test)
    return None


class Row(NamedTuple):
    """A line of the table: the finding about a map on some kernels. `share` is how full it was, 0 to 1.

    `rank` is that of the finding, and 5 where there is none.
    """

    rank: int
    map: str
    kernels: tuple[str, ...]
    fill: str
    share: float | None
    memory: str
    finding: str
    test: str


def rows(usages: Usages, *, everything: bool) -> list[Row]:
    """Returns the rows of the table; maps that are used as they should be only with `everything`.

    The most serious findings come first. Kernels with the same finding about a map share a row, which has the
    largest figure of memory.
    """
    found: dict[tuple[Any, ...], list[Key]] = {}
    for key in sorted(usages, key=lambda key: (key.object, key.map, numbers_of(key.kernel))):
        usage = usages[key]
        said = finding(usage)
        if said is None and not everything:
            continue
        rank, text, test = said or Finding(5, "", usage.test)
        found.setdefault((rank, key.object, key.map, _fill(usage), text, test), []).append(key)
    made = []
    for (rank, object_name, name, fill, text, test), keys in sorted(found.items(), key=lambda each: each[0]):
        kernels = tuple(key.kernel for key in keys)
        memory = max((size for key in keys if (size := usages[key].memory) is not None), default=None)
        share = _share(usages[keys[0]])
        made.append(Row(rank, f"{object_name}: {name}", kernels, fill, share, _size(memory), text, test))
    return made


def table(usages: Usages, *, everything: bool) -> list[str]:
    """Returns the lines of the table of `rows`; none if there are no rows."""
    found = rows(usages, everything=everything)
    if not found:
        return []
    texts = [(each.map, ", ".join(each.kernels), each.fill, *each[5:]) for each in found]
    return _lines([("map", "kernel", "entries", "memory", "finding", "test"), *texts])


def _share(usage: Usage) -> float | None:
    if usage.entries is None or not usage.max_entries:
        return None
    return min(usage.entries / usage.max_entries, 1.0)


def _fill(usage: Usage) -> str:
    count = "?" if usage.entries is None else f"{usage.entries:,}"
    unit = " bytes" if usage.type == _RING else ""
    return f"{count} of {usage.max_entries:,}{unit}"


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:,.0f} KiB" if size < 1 << 20 else f"{size / (1 << 20):,.1f} MiB"


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(cells).rstrip() for cells in padded]


def notes(usages: Usages) -> list[str]:
    """Returns a line for each reason for which figures are unknown, with the maps that it is about."""
    reasons: dict[str, list[str]] = {}
    for key, usage in sorted(usages.items()):
        if usage.entries is None:
            reasons.setdefault(f"entries are unknown: {usage.unknown}", []).append(_name(key))
        if usage.failed is None:
            reasons.setdefault(f"failed updates are unknown: {usage.not_counted}", []).append(_name(key))
    return [f"{why} ({_some(names)})" for why, names in reasons.items()]


def _name(key: Key) -> str:
    return f"{key.map} [{key.kernel}]"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", and {len(names) - 3} more maps" if len(names) > 3 else "")


_FIELDS = tuple(Usage.__dataclass_fields__)


def plain(usages: Usages) -> list[list[Any]]:
    """Returns the records in plain types, which a report can carry from a worker."""
    return [[*key, {name: getattr(usage, name) for name in _FIELDS}] for key, usage in usages.items()]


def add_plain(usages: Usages, rows: Iterable[Any]) -> None:
    """Adds the records of `plain`. Raises ValueError, TypeError or LookupError for other values."""
    for object_name, map_name, kernel, values in rows:
        add(usages, Key(str(object_name), str(map_name), str(kernel)), _usage(values))


def add(usages: Usages, key: Key, usage: Usage) -> bool:
    """Adds what a test found of a map to what other tests found. Returns whether that tells anything new."""
    if key not in usages:
        usages[key] = usage
        return True
    before = usages[key].copy()
    usages[key].add(usage)
    return usages[key] != before


def _usage(values: Mapping[str, Any]) -> Usage:
    """Returns a record of `plain`. Each value is converted to its type, because a guest may send anything."""

    def number(name: str) -> int | None:
        return None if values[name] is None else int(values[name])

    failed, updated = values["failed"], values["updated"]
    return Usage(
        type=str(values["type"]),
        max_entries=int(values["max_entries"]),
        test=str(values["test"]),
        entries=number("entries"),
        unknown=str(values["unknown"]),
        memory=number("memory"),
        was_full=bool(values["was_full"]),
        produced=int(values["produced"]),
        failed=None if failed is None else {why: int(failed[why]) for why in REASONS},
        not_counted=str(values["not_counted"]),
        updated=None if updated is None else bool(updated),
        losing={str(test): int(count) for test, count in values["losing"].items()},
        beyond={str(test): str(text) for test, text in values["beyond"].items()},
    )
