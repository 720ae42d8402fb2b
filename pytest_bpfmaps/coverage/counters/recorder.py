"""Loads objects that count in place of plain ones, and reads their counters. It works where tests run."""

from __future__ import annotations

import struct
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_bpfmaps.compiler.linked_objects import linked_inputs
from pytest_bpfmaps.coverage.counters.unreachable import ObjectCode, unreachable
from pytest_bpfmaps.coverage.engines import Plain, Swap
from pytest_bpfmaps.errors import BpfError, MapError
from pytest_bpfmaps.libbpf import check, ffi, lib
from pytest_bpfmaps.objects import LoadedObject, OpenedObject
from pytest_bpfmaps.objects.replacement import replaced

_Key = tuple[tuple[str, ...], frozenset[int] | None]
_FIRST = ffi.new("uint32_t *", 0)  # a section is an array of one element


class CounterRecorder:
    """The recorder of the engine ``counters``, see `engines.Recorder`."""

    def __init__(self, *, mcdc: bool = False) -> None:
        self._mcdc = mcdc
        self._reasons: weakref.WeakKeyDictionary[LoadedObject, str] = weakref.WeakKeyDictionary()
        self._live: dict[LoadedObject, _Reader] = {}
        self._read: dict[_Key, _Seen] = {}
        self._told: list[Plain] = []

    def before_load(self, opened: OpenedObject) -> Swap:
        """Returns the function that loads a counting object in place of the plain one."""
        return lambda loaded: self._swap(opened, loaded)

    def _swap(self, opened: OpenedObject, loaded: LoadedObject) -> LoadedObject:
        """Loads the counting object. If that is not possible, keeps the reason for the method `loaded`."""
        if opened.counting is None:
            self._reasons[loaded] = "no source of it was compiled here"
            return loaded
        reason = ""
        if self._mcdc:
            loaded, reason = self._try(opened, loaded, mcdc=True)
            if not reason:
                return loaded
        without_conditions = reason
        loaded, reason = self._try(opened, loaded, mcdc=False)
        if reason:
            self._reasons[loaded] = reason
        elif without_conditions:
            self._told.append({"without_mcdc": loaded.name, "why": without_conditions})
        return loaded

    def _try(self, opened: OpenedObject, loaded: LoadedObject, *, mcdc: bool) -> tuple[LoadedObject, str]:
        """Tries to load a counting object. Returns the object that is loaded afterwards.

        The text says why that object does not count; it is empty if it does.
        """
        assert opened.counting is not None
        try:
            path = opened.counting(mcdc)
            used, refusal = replaced(opened, loaded, path)
        except BpfError as e:
            return loaded, f"no object that counts can be made: {_first_line(e)}"
        if refusal is not None:
            return used, f"the verifier refuses it with counters: {_first_line(refusal)}"
        if used.counters is None:
            return used, "it has no function"
        inputs = tuple(map(str, linked_inputs(path) or [path]))
        self._live[used] = _Reader(used, inputs, _unreachable(used, path))
        return used, ""

    def loaded(self, loaded: LoadedObject, programs: Sequence[str]) -> dict[str, str]:
        """Returns the reasons: all programs of an object count, or none."""
        if loaded in self._live:
            return {}
        return dict.fromkeys(programs, self._reasons.get(loaded, ""))

    def closing(self, loaded: LoadedObject) -> None:
        """Reads the counters for the last time."""
        reader = self._live.pop(loaded, None)
        if reader is not None:
            self._add(reader)

    def take(self) -> list[Plain]:
        """Returns what was counted, as plain values.

        ``{"objects": [PATH, …], "names": [NAME, …], "counts": [[INDEX, COUNT], …], "vectors": [INDEX, …],
        "unreachable": [INDEX, …]}``. The names are those of the loaded objects. The index of a count is
        that of a 64-bit counter in the section of counters. The index of a vector is that of a byte in the
        section of test vectors. For linked sources there are several paths, and their sections follow one
        another. ``unreachable`` has indices of counters, or None if no counter depends on the kernel.
        ``{"lost": WHY}`` stands for counts that could not be read.
        ``{"without_mcdc": NAME, "why": WHY}`` stands for an object that counts without conditions.
        """
        for reader in self._live.values():
            self._add(reader)
        taken: list[Plain] = [
            {
                "objects": list(objects),
                "names": sorted(seen.names),
                "counts": [[i, n] for i, n in sorted(seen.counts.items())],
                "vectors": sorted(seen.vectors),
                "unreachable": None if gone is None else sorted(gone),
            }
            for (objects, gone), seen in self._read.items()
        ]
        taken += self._told
        self._read.clear()
        self._told.clear()
        return taken

    def _add(self, reader: _Reader) -> None:
        try:
            seen = self._read.setdefault((reader.objects, reader.unreachable), _Seen())
            seen.names.add(reader.name)
            reader.add_to(seen)
        except MapError as e:  # a test may have closed the descriptor
            self._told.append({"lost": _first_line(e)})


@dataclass
class _Seen:
    """What objects counted: their names, counts by the counter's index, and the indices of test vectors."""

    names: set[str] = field(default_factory=set)
    counts: Counter[int] = field(default_factory=Counter)
    vectors: set[int] = field(default_factory=set)


class _Reader:
    """The counters and the test vectors of one loaded object."""

    def __init__(self, loaded: LoadedObject, objects: tuple[str, ...], gone: frozenset[int] | None) -> None:
        self.name = loaded.name
        self.objects = objects
        self.unreachable = gone
        self._counters = _Section(loaded.counters, objects[0])
        self._vectors = None if loaded.vectors is None else _Section(loaded.vectors, objects[0])
        self._before: tuple[int, ...] = (0,) * (len(self._counters.value) // 8)
        self._known: set[int] = set()

    def add_to(self, seen: _Seen) -> None:
        """Adds what was counted since the last call, without zeros. Raises `MapError`."""
        now = struct.unpack(f"={len(self._before)}Q", self._counters.read())
        seen.counts.update(
            {i: n - b for i, (n, b) in enumerate(zip(now, self._before, strict=True)) if n != b}
        )
        self._before = now
        if self._vectors is not None:
            set_now = {i for i, byte in enumerate(self._vectors.read()) if byte}
            seen.vectors |= set_now - self._known
            self._known = set_now


class _Section:
    """A section of a loaded object: a map with one element."""

    def __init__(self, handle: Any, on: str) -> None:
        self.value = bytearray(lib.bpf_map__value_size(handle))
        self._handle = handle
        self._on = on

    def read(self) -> bytearray:
        """Returns the section's bytes as they are now. Raises `MapError`."""
        result = lib.bpf_map_lookup_elem(lib.bpf_map__fd(self._handle), _FIRST, ffi.from_buffer(self.value))
        check(result, MapError, "cannot read the counters of", on=self._on)
        return self.value


def _unreachable(loaded: LoadedObject, path: Path) -> frozenset[int] | None:
    """Returns the counters that this kernel can't reach; None if none depends on the kernel."""
    try:
        code = ObjectCode(path)
        if not code.answers:
            return None
        fd = lib.bpf_map__fd(loaded.counters)
        found = unreachable(code, [(p.name, p.instructions, fd) for p in loaded.programs])
    except (OSError, ValueError, LookupError, struct.error):
        return None
    return None if found is None else frozenset(found)


def _first_line(error: BpfError) -> str:
    return " ".join(str(error).splitlines()[0].split())
