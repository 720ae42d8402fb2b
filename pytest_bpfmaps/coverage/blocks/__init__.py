"""The engine ``blocks``: in emulated guests QEMU counts what any program executes, without a change to it.

`recorder` asks the gateway of its guest what ran. `vm.executed` finds the lines, and `resolve` adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_bpfmaps.coverage.blocks.recorder import BlockRecorder, begin
from pytest_bpfmaps.coverage.data import Coverage
from pytest_bpfmaps.coverage.engines import Record


class BlockEngine:
    """The engine ``blocks``."""

    def recorder(self, *, mcdc: bool) -> BlockRecorder | str:
        """Returns a recorder, or why there can be none outside of an emulated guest.

        It does not record the values of conditions, so `mcdc` changes nothing.
        """
        return begin()

    def resolve(self, records: Sequence[Record], total: Coverage, tell: Callable[[str], None]) -> None:
        """Adds up what the gateways counted."""
        from pytest_bpfmaps.coverage.blocks.resolve import resolve

        resolve(records, total, tell)


def engine() -> BlockEngine:
    """Returns the engine."""
    return BlockEngine()
