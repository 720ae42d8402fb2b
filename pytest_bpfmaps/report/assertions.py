"""Explains a failing comparison: the map's type and name, and the keys, fields or records that differ."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any

import pytest

# pytest itself cuts an explanation to 8 lines and 640 characters, unless with -vv or in CI.
_FEW, _WIDTH = 5, 90
_MANY, _WIDE = 100, 400  # in CI: number of differences, and characters of a value
_SWAPPED = {"==": "==", ">=": "<=", "<=": ">="}
_MOST_SWAPPED = 50  # keys whose bytes are compared in both orders
_MOST_PARTS = 1000  # elements of a list or mapping in the text of one value
_MISSING = object()


def pytest_assertrepr_compare(
    config: pytest.Config, op: str, left: object, right: object
) -> list[str] | None:
    """Explains comparisons of maps, snapshots, records, per-CPU values and captures.

    Explains two numbers, too, where one is the other in network byte order.
    """
    if op not in _SWAPPED or "pytest_bpfmaps.btf" not in sys.modules:
        return None
    if config.get_verbosity(pytest.Config.VERBOSITY_ASSERTIONS) >= 2:
        text = Text(None, None)
    else:
        text = Text(_MANY, _WIDE) if "CI" in os.environ or "BUILD_NUMBER" in os.environ else Text()
    return explain(op, left, right, text)


@dataclass
class Sides:
    """Two things to compare place by place. `noun` names a place; `label` says which place it is."""

    title: str
    mine: Mapping[Any, Any]
    theirs: Mapping[Any, Any]
    noun: str
    label: Callable[[Any], str]
    note: str = ""
    advice: str = ""
    codecs: Mapping[Any, Any] | Any = None  # how to compare values: one codec by place, or one for all

    def differ(self, place: Any) -> bool:
        """Returns whether the two differ at `place`."""
        from pytest_bpfmaps.btf.comparison import same

        mine, theirs = self.mine.get(place, _MISSING), self.theirs.get(place, _MISSING)
        if mine is _MISSING or theirs is _MISSING:
            return True
        codec = self.codecs.get(place) if isinstance(self.codecs, Mapping) else self.codecs
        return not same(codec, mine, theirs)


@dataclass
class Text:
    """How much is shown: `most` differences, and `width` characters of a value; None shows all."""

    most: int | None = _FEW
    width: int | None = _WIDTH

    def of(self, value: object) -> str:
        """Returns the text of a value, decoded, with the names of enumerators."""
        text = _plain(value)
        return text if self.width is None or len(text) <= self.width else f"{text[: self.width - 1]}…"


def explain(op: str, left: object, right: object, text: Text) -> list[str] | None:
    """Returns the lines for a comparison that failed; None when neither side is of this package."""
    for mine, theirs, direction in ((left, right, op), (right, left, _SWAPPED[op])):
        sides = _sides(mine, theirs, text)
        if sides is not None:
            names = (sides.title, text.of(theirs)) if mine is left else (text.of(theirs), sides.title)
            return [f"{names[0]} {op} {names[1]}", *_lines(sides, direction, text)]
    return _of_packets(op, left, right, text) or _of_numbers(op, left, right)


def _of_packets(op: str, left: object, right: object, text: Text) -> list[str] | None:
    """Explains the packet of a run and another packet, by the fields that differ."""
    from pytest_bpfmaps.programs.packet import Packet, bytes_of, differences

    if op != "==" or not (isinstance(left, Packet) or isinstance(right, Packet)):
        return None
    mine, theirs = bytes_of(left), bytes_of(right)
    if mine is None or theirs is None:
        return None
    lines = list(differences(mine, theirs) if isinstance(left, Packet) else differences(theirs, mine))
    if mine == theirs:
        lines = ["the bytes are equal, but the left side compares types: write the packet of the run first"]
    shown = lines[: text.most]
    if len(lines) > len(shown):
        shown.append(f"… and {len(lines) - len(shown)} more (-vv shows all)")
    return [f"{Packet(mine).summary()} == {Packet(theirs).summary()}", *(f"  {line}" for line in shown)]


def _of_numbers(op: str, left: object, right: object) -> list[str] | None:
    """Explains two numbers that are equal in another byte order: a port is often in network byte order."""
    from pytest_bpfmaps.btf.comparison import byte_swap

    hint = byte_swap(left, right) if op == "==" else None
    return [f"{left} {op} {right}", hint] if hint else None


def _plain(value: object) -> str:
    from pytest_bpfmaps.btf import Record
    from pytest_bpfmaps.btf.listed_keys import Listed

    if isinstance(value, Record):
        shown = ", ".join(f"{n!r}: {_plain(value.__peek__(n))}" for n in value.__codec__.by_name)
        return f"{{{shown}}}{value.__note__ if isinstance(value, Listed) else ''}"
    if isinstance(value, Listed):
        return repr(value)
    if isinstance(value, Enum):
        return f"{value.name} ({int(value.value)})"
    if isinstance(value, Mapping):
        return f"{{{_joined(value.items(), lambda item: f'{_plain(item[0])}: {_plain(item[1])}')}}}"
    if isinstance(value, list | tuple):
        brackets = "()" if isinstance(value, tuple) and type(value) is tuple else "[]"
        return _joined(value, _plain).join(brackets)
    return repr(value)


def _joined(values: Collection[Any], shown: Callable[[Any], str]) -> str:
    """Returns the texts of the first values, and a sign where more follow: nobody reads thousands of them."""
    texts = [shown(value) for value in islice(values, _MOST_PARTS)]
    return ", ".join([*texts, "…"] if len(values) > _MOST_PARTS else texts)


def _sides(mine: object, theirs: object, text: Text) -> Sides | None:
    from pytest_bpfmaps.btf import Record
    from pytest_bpfmaps.events.capture import Capture
    from pytest_bpfmaps.maps.families.hash import HashMap
    from pytest_bpfmaps.maps.families.percpu import PerCpu
    from pytest_bpfmaps.maps.snapshot import Snapshot
    from pytest_bpfmaps.maps.sparse import SparseMap

    is_list = isinstance(theirs, Sequence) and not isinstance(theirs, str | bytes)
    match mine:
        case HashMap() | SparseMap() if isinstance(theirs, Mapping) or is_list:
            return _of_map(mine, theirs, text)
        case Snapshot() if isinstance(theirs, Mapping):
            return _of_snapshot(mine, theirs, text)
        case Record() if isinstance(theirs, Mapping | Record | tuple):
            return _of_record(mine, theirs)
        case PerCpu() if is_list:
            return _of_list("the value of each CPU", "CPU", mine, theirs)
        case Capture() if is_list:
            return _of_list(f"the records from {mine.on}", "record", list(mine), theirs)
    return None


def _of_map(the_map: Any, theirs: Any, text: Text) -> Sides:
    wanted = theirs if isinstance(theirs, Mapping) else dict(enumerate(theirs))
    sides = _of_snapshot(the_map.compared or the_map.snapshot(), wanted, text)
    sides.title = str(the_map)
    return sides


def _of_snapshot(seen: Any, theirs: Mapping[Any, Any], text: Text) -> Sides:
    seen.keys()  # decodes a lazy snapshot, so that all keys have one form
    wanted = {seen.canonical(k): v for k, v in theirs.items()}
    note = "" if seen.complete else "the map was written to so fast that not all of it could be read"
    mine, advice = _with_odd_keys(seen, wanted)
    origin = seen.origin or "dict"
    return Sides(origin, mine, wanted, "key", lambda key: f"key {text.of(key)}", note, advice, seen.value)


@dataclass(frozen=True)
class _Alike:
    """Stands for the values of elements whose keys look like a wanted key. It is equal to nothing."""

    says: str
    values: list[Any]


def _with_odd_keys(seen: Any, wanted: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], str]:
    """Returns the elements, with one element for all keys that look like a wanted key, and advice on them."""
    from pytest_bpfmaps.maps.equal_keys import ADVICE

    if not seen.has_odd_keys:
        return seen, ""
    elements = dict(seen.items())
    mine: dict[Any, Any] = {}
    advice = ""
    for key, value in elements.items():
        plain = seen.plain(key)
        alike = seen.alike(plain) if plain in wanted else []
        if alike:
            advice = ADVICE
            mine[plain] = _Alike(seen.explain_alike(plain), [elements[k] for k in alike])
        else:
            mine[key] = value
    return mine, advice


def _of_record(record: Any, theirs: Any) -> Sides:
    codec = record.__codec__
    # A field without a value counts when the other side has a value for it.
    names = [f.name for f in codec.fields if not f.codec.absent or f.name in _names(theirs)]
    wanted: Mapping[Any, Any] = theirs
    if isinstance(theirs, Mapping):
        counting = {*theirs, *codec.names_lacking(theirs)}  # one alternative of a union is enough
        names = [n for n in names if n in counting]
    elif isinstance(theirs, tuple):
        names = [f.name for f in codec.positions if f.name in names]
        wanted = {names[i] if i < len(names) else f"[{i}]": v for i, v in enumerate(theirs)}
    else:
        wanted = {n: theirs.__peek__(n) for n in _names(theirs)}
    mine = {n: record.__peek__(n) for n in names}
    codecs = {name: field.codec for name, field in codec.by_name.items()}
    note, advice = _odd_note(record, theirs)
    return Sides(codec.name, mine, wanted, "field", lambda name: f".{name}", note, advice, codecs)


def _odd_note(record: Any, theirs: Any) -> tuple[str, str]:
    """Returns a sentence about a listed key, which equals no plain value, and advice; else empty texts."""
    from pytest_bpfmaps.btf.listed_keys import Listed
    from pytest_bpfmaps.maps.equal_keys import ADVICE

    if not isinstance(record, Listed) or isinstance(theirs, Listed):
        return "", ""
    return (
        f"the key has bytes that no such value has (uninitialised bytes?):{record.__note__}",
        ADVICE,
    )


def _names(theirs: Any) -> Any:
    """Returns the names of the fields on the other side of the comparison with a record."""
    if isinstance(theirs, Mapping):
        return theirs.keys()
    return (
        () if isinstance(theirs, tuple) else [f.name for f in theirs.__codec__.fields if not f.codec.absent]
    )


def _of_list(title: str, noun: str, mine: Sequence[Any], theirs: Any) -> Sides:
    counts = f"{len(mine)} {noun}{'s' * (len(mine) != 1)}, {len(theirs)} expected"
    note = counts if len(mine) != len(theirs) else ""
    return Sides(title, dict(enumerate(mine)), dict(enumerate(theirs)), noun, lambda i: f"{noun} {i}", note)


def _lines(sides: Sides, direction: str, text: Text) -> list[str]:
    from pytest_bpfmaps.btf.comparison import swapped_key

    mine, theirs = sides.mine, sides.theirs
    keys = {
        "==": dict.fromkeys([*mine, *theirs]),
        ">=": dict.fromkeys(theirs),
        "<=": dict.fromkeys(mine),
    }[direction]
    different = [k for k in keys if sides.differ(k)]
    if not different:
        return [sides.note, f"  -> {sides.advice}"] if sides.advice else ["they are equal"]
    most = len(different) if text.most is None else text.most
    lines = [sides.note] if sides.note else []
    lines.append(f"{len(different)} of {len(keys)} {sides.noun}s differ{'s' * (len(keys) == 1)}:")
    for key in in_order(different)[:most]:
        says = _difference(mine.get(key, _MISSING), theirs.get(key, _MISSING), text)
        lines.append(f"  {sides.label(key)}: {says}")
    if len(different) > most:
        lines.append(f"  … and {len(different) - most} more (-vv shows all)")
    extra = [k for k in different if k not in theirs][:_MOST_SWAPPED]
    missing = [k for k in different if k not in mine][:_MOST_SWAPPED]
    if hint := next(filter(None, (swapped_key(k, extra) for k in missing)), None):
        lines.append(f"  {hint}")
    return [*lines, f"  -> {sides.advice}"] if sides.advice else lines


def _difference(mine: Any, theirs: Any, text: Text) -> str:
    from pytest_bpfmaps.btf import Record
    from pytest_bpfmaps.btf.comparison import byte_swap

    if isinstance(mine, _Alike):
        expected = "not expected" if theirs is _MISSING else f"expected {text.of(theirs)}"
        return f"{mine.says}; with {text.of(mine.values)}, {expected}"
    if mine is _MISSING:
        return f"missing, expected {text.of(theirs)}"
    if theirs is _MISSING:
        return f"{text.of(mine)}, not expected"
    if isinstance(mine, Record) and isinstance(theirs, Mapping | Record):
        sides = _of_record(mine, theirs)
        names = [n for n in dict.fromkeys([*sides.mine, *sides.theirs]) if sides.differ(n)]
        fields = [(n, sides.mine.get(n, _MISSING), sides.theirs.get(n, _MISSING)) for n in names]
        return "; ".join(f".{n} {_difference(a, b, text)}" for n, a, b in fields)
    hint = byte_swap(mine, theirs)
    return f"{text.of(mine)}, expected {text.of(theirs)}" + (f" ({hint})" if hint else "")


def in_order(keys: list[Any]) -> list[Any]:
    """Returns keys of a map sorted: numbers, texts and records by value, others by their text."""
    try:
        return sorted(keys)
    except TypeError:
        pass
    try:
        return sorted(keys, key=tuple)  # records
    except TypeError:
        return sorted(keys, key=_plain)
