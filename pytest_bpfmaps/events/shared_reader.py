"""Shares one reader among all captures of a buffer in this process, so that each gets every record.

A ring buffer gives a record to only one reader. A perf event array has only one set of buffers: the one that
was put there last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakSet

from pytest_bpfmaps.events.buffer import RecordSource
from pytest_bpfmaps.events.records import Block, blocks_of


class _Reader:
    """The buffer's source, and the captures that get its records."""

    def __init__(self, source: RecordSource) -> None:
        self.source = source
        self.shares: WeakSet[SharedSource] = WeakSet()

    def read(self) -> None:
        for block in blocks_of(self.source):
            for share in list(self.shares):
                share.add(block)


_READERS: dict[tuple[int, bool], _Reader] = {}
"""The open readers, by the map's id and whether the reader is a tap."""


class SharedSource:
    """One capture's share of a buffer: the records from now on. `make` opens the buffer."""

    def __init__(self, map_id: int, make: Callable[[], RecordSource], *, is_tap: bool = False) -> None:
        self._key = map_id, is_tap
        reader = _READERS.get(self._key)
        if reader is None:
            reader = _READERS[self._key] = _Reader(make())
        self._reader: _Reader | None = reader
        self._source = reader.source
        self._blocks: list[Block] = []
        reader.read()  # so that the records so far go to the other shares only
        reader.shares.add(self)
        self._before = self._counts()
        self.padding = self._source.padding

    def _counts(self) -> tuple[int, ...]:
        source = self._source
        return source.lost, source.taken, source.overwritten, source.missed, source.times_full

    @property
    def lost(self) -> int:
        """See `RecordSource`."""
        return self._source.lost - self._before[0]

    @property
    def taken(self) -> int:
        """See `RecordSource`."""
        return self._source.taken - self._before[1]

    @property
    def overwritten(self) -> int:
        """See `RecordSource`."""
        return self._source.overwritten - self._before[2]

    @property
    def missed(self) -> int:
        """See `RecordSource`."""
        return self._source.missed - self._before[3]

    @property
    def times_full(self) -> int:
        """See `RecordSource`."""
        return self._source.times_full - self._before[4]

    def add(self, block: Block) -> None:
        """Keeps records that were read until `blocks` returns them."""
        self._blocks.append(block)

    def blocks(self) -> Iterable[Block]:
        """Returns the records that came since the last call."""
        if self._reader is not None:
            self._reader.read()
        found, self._blocks = self._blocks, []
        return found

    def drain(self) -> Iterable[bytes]:
        """Returns the same records one by one."""
        return (raw for block in self.blocks() for raw in block)

    def others(self) -> str | None:
        """See `RecordSource`."""
        return self._source.others()

    def wait(self, seconds: float) -> None:
        """Sleeps until a record may be there, for at most `seconds`."""
        if self._reader is not None and not self._blocks:
            self._source.wait(seconds)

    def close(self) -> None:
        """Ends this share; the last one closes the buffer. Safe to call again."""
        reader, self._reader = self._reader, None
        if reader is None:
            return
        reader.shares.discard(self)
        if not reader.shares:
            _READERS.pop(self._key, None)
            reader.source.close()
