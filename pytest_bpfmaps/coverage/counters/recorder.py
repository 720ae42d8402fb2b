"""Loads objects that count in place of plain ones, and reads their counters: where tests run."""

from __future__ import annotations

import struct
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_bpfmaps.compiler.linker import linked_inputs
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

    def __init__(self) -> None:
        self._reasons: weakref.WeakKeyDictionary[LoadedObject, str] = weakref.WeakKeyDictionary()
        self._live: dict[LoadedObject, _Reader] = {}
        self._read: dict[_Key, Counter[int]] = {}
        self._lost: list[str] = []

    def before_load(self, opened: OpenedObject) -> Swap:
        """Returns what puts a counting object in the place of the plain one, once that is loaded."""
        return lambda loaded: self._swap(opened, loaded)

    def _swap(self, opened: OpenedObject, loaded: LoadedObject) -> LoadedObject:
        """Loads the counting object. If there can be none, keeps the reason for `loaded`."""
        if opened.counting is None:
            self._reasons[loaded] = "no source of it was compiled here"
            return loaded
        try:
            path = opened.counting()
            used, refusal = replaced(opened, loaded, path)
        except BpfError as e:
            self._reasons[loaded] = f"no object that counts can be made: {_first_line(e)}"
            return loaded
        if refusal is not None:
            self._reasons[used] = f"the verifier refuses it with counters: {_first_line(refusal)}"
        elif used.counters is None:
            self._reasons[used] = "it has no function"
        else:
            inputs = tuple(map(str, linked_inputs(path) or [path]))
            self._live[used] = _Reader(used.counters, inputs, _unreachable(used, path))
        return used

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
        """Returns ``{"objects": [PATH, …], "counts": [[INDEX, COUNT], …], "unreachable": [INDEX, …]}``.

        The index is that of a 64-bit counter in the section of counters. Of linked sources there are several
        paths, and their counters lie one behind the other. ``unreachable`` is None where no counter depends
        on the kernel. ``{"lost": WHY}`` stands for counts that could not be read.
        """
        for reader in self._live.values():
            self._add(reader)
        taken: list[Plain] = [
            {
                "objects": list(objects),
                "counts": [[i, n] for i, n in sorted(counts.items())],
                "unreachable": None if gone is None else sorted(gone),
            }
            for (objects, gone), counts in self._read.items()
        ]
        taken += [{"lost": text} for text in self._lost]
        self._read.clear()
        self._lost.clear()
        return taken

    def _add(self, reader: _Reader) -> None:
        key = (reader.objects, reader.unreachable)
        try:
            self._read.setdefault(key, Counter()).update(reader.more())
        except MapError as e:  # a test may have closed the descriptor
            self._lost.append(_first_line(e))


class _Reader:
    """The counters of one loaded object."""

    def __init__(self, handle: Any, objects: tuple[str, ...], gone: frozenset[int] | None) -> None:
        self.objects = objects
        self.unreachable = gone
        self._handle = handle
        self._value = bytearray(lib.bpf_map__value_size(handle))
        self._before: tuple[int, ...] = (0,) * (len(self._value) // 8)

    def more(self) -> dict[int, int]:
        """Returns what was counted since the last call, by the counter's index, without zeros."""
        result = lib.bpf_map_lookup_elem(lib.bpf_map__fd(self._handle), _FIRST, ffi.from_buffer(self._value))
        check(result, MapError, "cannot read the counters of", on=self.objects[0])
        now = struct.unpack(f"={len(self._before)}Q", self._value)
        found = {i: n - b for i, (n, b) in enumerate(zip(now, self._before, strict=True)) if n != b}
        self._before = now
        return found


def _unreachable(loaded: LoadedObject, path: Path) -> frozenset[int] | None:
    """Returns the counters that this kernel can't reach; None where none depends on the kernel."""
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
