"""Keeps captured records as bytes, and decodes them when they are read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, overload, runtime_checkable

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.absent_fields import shortened
from pytest_bpfmaps.errors import BpfError, NoValueError
from pytest_bpfmaps.events.buffer import RecordSource
from pytest_bpfmaps.events.tagged_records import TaggedCodec

# Python starts a garbage collection after a larger number of new objects (700 by default in Python 3.11).
_DECODE_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Block:
    """`count` records of `size` bytes each, the first at `start` of `data`, `step` bytes apart."""

    data: bytes
    start: int
    step: int
    size: int
    count: int

    def __iter__(self) -> Iterator[bytes]:
        for at in range(self.start, self.start + self.count * self.step, self.step):
            yield self.data[at : at + self.size]


@runtime_checkable
class BlockSource(Protocol):
    """A source that has its records in blocks."""

    def blocks(self) -> Iterable[Block]:
        """Takes the records out of the buffer, as `RecordSource.drain`, many records at once."""


def blocks_of(source: RecordSource) -> Iterable[Block]:
    """Returns the records that are in a source now."""
    if isinstance(source, BlockSource):
        return source.blocks()
    return (Block(raw, 0, len(raw), len(raw), 1) for raw in source.drain())


class Records(Sequence[Any]):
    """Records of one type. `on` names their buffer in messages.

    Up to `padding` of a record's last bytes may come from the buffer, and not from the program.
    """

    def __init__(self, codec: Codec, on: str, padding: int = 0) -> None:
        self._codec = codec
        self._on = on
        self._padding = padding
        self._blocks: list[Block] = []
        self._ends: list[int] = []  # for each block, the number of records up to its end

    def add(self, block: Block) -> None:
        """Appends the records of a block."""
        self._blocks.append(block)
        self._ends.append(len(self) + block.count)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        total = len(self)
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(total))]
        at = index + total if index < 0 else index
        if at < 0:
            raise IndexError(index)
        which = bisect_right(self._ends, at)  # after the last record, this is no index of a block
        block = self._blocks[which]
        return self._decode(block, at - (self._ends[which] - block.count), 1)[0]

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._decoded())

    def _decoded(self) -> Iterator[list[Any]]:
        for block in self._blocks:
            for first in range(0, block.count, _DECODE_AT_ONCE):
                yield self._decode(block, first, min(_DECODE_AT_ONCE, block.count - first))

    def _decode(self, block: Block, first: int, count: int) -> list[Any]:
        start = block.start + first * block.step
        codec = self._codec
        if isinstance(codec, TaggedCodec):
            pass
        elif block.size < codec.size:
            codec = shortened(codec, block.size, self._padding)
        elif not codec.flexible:
            return codec.decode_each(block.data, start, block.step, count)
        places = range(start, start + count * block.step, block.step)
        raw = [block.data[at : at + block.size] for at in places]
        if isinstance(codec, TaggedCodec):
            return [codec.decode_padded(each, self._padding) for each in raw]
        return [codec.decode_rest(each) for each in raw]

    def shown(self, start: int, stop: int) -> list[str]:
        """Returns the records from `start` up to `stop` as text; for one that can't be read, the reason."""
        texts = []
        for at in range(*slice(start, stop).indices(len(self))):
            try:
                texts.append(repr(self[at]))
            except BpfError as e:
                texts.append(f"<{e.what}{f': {e.why}' if e.why else ''}>")
        return texts

    def to_numpy(self) -> Any:
        """Returns all records in one structured array.

        Raises `NoValueError` if a record is shorter than its type.
        """
        from pytest_bpfmaps.btf import numpy_arrays

        short = next((b for b in self._blocks if b.size < self._codec.size), None)
        if short is not None:
            raise NoValueError(
                "cannot make an array",
                on=f"of the records from {self._on}",
                why=f"one has {short.size} bytes, but {self._codec.name} has {self._codec.size}",
                fix="read the records one by one; or name their own type: capture('my_struct')",
            )
        blocks = ((b.count, b.data, b.start, b.step) for b in self._blocks)
        return numpy_arrays.from_blocks(blocks, self._codec, len(self))
