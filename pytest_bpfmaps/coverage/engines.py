"""The engines that count, and what each has to do. `ENGINES` lists them.

An engine has two halves. Its `Recorder` works in the process that runs the tests, in a guest too, and returns
plain values. `Engine.resolve` turns them into lines of source, in the process that reports: only that process
has clang's tools, and QEMU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from pytest_bpfmaps.coverage.data import Coverage
from pytest_bpfmaps.objects import LoadedObject, OpenedObject

ENGINES: dict[str, str] = {
    "counters": "pytest_bpfmaps.coverage.counters",
    "blocks": "pytest_bpfmaps.coverage.blocks",
}
"""The module of each engine, which has a function ``engine()``. ``auto`` tries them in this order."""

Plain = Mapping[str, Any]
"""A mapping of types that JSON and execnet can carry."""

Swap = Callable[[LoadedObject], LoadedObject]
"""Gets the object as it was loaded, and returns the one that tests use: the same, or one that counts."""


@dataclass(frozen=True)
class Record:
    """What an engine counted on one kernel, during one test.

    `test` is empty if tests are not told apart, or if none ran.
    """

    engine: str
    kernel: str
    test: str
    counted: Plain

    def to_plain(self) -> dict[str, Any]:
        """Returns it in types that JSON and execnet can carry."""
        return dict(vars(self))


class Recorder(Protocol):
    """The half of an engine that works where tests run. It raises no error for what it can't measure."""

    def before_load(self, opened: OpenedObject) -> Swap | None:
        """Prepares an object that is about to be loaded. Returns None if the object is used as it is."""
        ...

    def loaded(self, loaded: LoadedObject, programs: Sequence[str]) -> dict[str, str]:
        """Notes a loaded object. `programs` are those that no other engine measures.

        Returns the programs that this engine can't measure either, with the reason.
        """
        ...

    def closing(self, loaded: LoadedObject) -> None:
        """Reads the counts of an object for the last time, before it is closed."""
        ...

    def take(self) -> list[Plain]:
        """Returns what was counted since the last call, also by objects that are still loaded."""
        ...


class Engine(Protocol):
    """The half of an engine that works in the process that reports."""

    def recorder(self, *, mcdc: bool) -> Recorder | str:
        """Returns the other half for this process, or a sentence that says why there can be none here.

        With `mcdc` it records the values of conditions, if it can.
        """
        ...

    def resolve(self, records: Sequence[Record], total: Coverage, tell: Callable[[str], None]) -> None:
        """Adds what was counted to `total`, by lines of source.

        `tell` gets a sentence for what can't be resolved. The programs that this concerns are no longer
        measured in `total`.
        """
        ...


def engine(name: str) -> Engine:
    """Returns the engine of that name. Raises `KeyError` when there is none."""
    made: Engine = import_module(ENGINES[name]).engine()
    return made
