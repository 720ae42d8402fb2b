"""The engine ``counters``: clang adds counters to sources that this package compiles, for every kernel.

`recorder` loads objects that count, and reads them. `resolve` turns the counts into lines, by clang's tools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_bpfmaps.coverage.counters.recorder import CounterRecorder
from pytest_bpfmaps.coverage.data import Coverage
from pytest_bpfmaps.coverage.engines import Record


class CounterEngine:
    """The engine ``counters``."""

    def recorder(self, *, mcdc: bool) -> CounterRecorder:
        """Returns a recorder, in every process."""
        return CounterRecorder(mcdc=mcdc)

    def resolve(self, records: Sequence[Record], total: Coverage, tell: Callable[[str], None]) -> None:
        """Runs llvm-profdata and llvm-cov, once for each object that counted."""
        from pytest_bpfmaps.coverage.counters.resolve import resolve

        resolve(records, total, tell)


def engine() -> CounterEngine:
    """Returns the engine."""
    return CounterEngine()
