"""Reads the memory in which QEMU's plugin (plugin.c) writes its counts; the gateway does so."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

SIZE = 256 << 20  # bytes; unused pages take no memory
MODULE_AREA = (
    0xFFFF_FFFF_A000_0000,
    0xFFFF_FFFF_FF00_0000,
)  # of x86-64: Documentation/arch/x86/x86_64/mm.rst
MOST_EXCLUDED = 240
_FORMAT = 1
_HEADER = struct.Struct("=8Q")  # format, size, used, lost, enabled, first, last, number of excluded parts
_USED, _LOST, _ENABLED, _EXCLUDED = 16, 24, 32, 56  # offsets
_FIRST_RECORD = _HEADER.size + 16 * MOST_EXCLUDED
_RECORD = struct.Struct("=7Q")  # length, address, instructions, size of the code, next, target, passed

Part = tuple[int, int]
"""A first address, and the address behind the last."""


@dataclass(slots=True)
class Block:
    """A block of machine code that QEMU has translated, and what of it has run since `Recording.read`.

    `instructions` are addresses. `target` is where the conditional jump at its end may go, or 0 without such
    a jump. `passed` is how often that jump was not taken.
    """

    address: int
    code: bytes
    instructions: list[int]
    target: int
    at: int  # offset of the record
    counts: Sequence[int] = ()
    passed: int = 0
    owner: int | None = None  # the reader may note here whose code it is
    _seen: bytes = b""
    _passed: int = field(default=0)

    def take(self, memory: memoryview) -> bool:
        """Sets `counts` and `passed` to what came since the last time. Returns whether anything came."""
        start = self.at + _RECORD.size
        now = bytes(memory[start - 8 : start + 8 * len(self.instructions)])
        if now == self._seen:
            return False
        numbers = memoryview(now).cast("Q")
        before = memoryview(self._seen or bytes(len(now))).cast("Q")
        self.passed, *self.counts = [n - b for n, b in zip(numbers, before, strict=True)]
        self._seen = now
        return True


class Recording:
    """What runs in one guest: the memory for it, and QEMU's arguments. Close it after QEMU has started.

    Nothing is counted before `begin`.
    """

    def __init__(self, plugin: Path) -> None:
        self._plugin = plugin
        self.fd = os.memfd_create("bpfmaps-executed")
        try:
            os.ftruncate(self.fd, SIZE)
            self._map = mmap.mmap(self.fd, SIZE)
        except BaseException:
            os.close(self.fd)
            raise
        _HEADER.pack_into(self._map, 0, _FORMAT, SIZE, _FIRST_RECORD, 0, 0, *MODULE_AREA, 0)
        self._memory = memoryview(self._map)
        self._blocks: list[Block] = []
        self._at = _FIRST_RECORD
        self.excluded: list[Part] = []

    @property
    def arguments(self) -> list[str]:
        """QEMU's arguments. QEMU has to inherit the descriptor `fd`, too."""
        return ["-plugin", f"file={self._plugin},size={SIZE},memory=/proc/self/fd/{self.fd}"]

    def begin(self, without: Sequence[Part]) -> None:
        """Counts from now on everything that is translated from now on, except the parts `without`."""
        self.excluded = list(without)[:MOST_EXCLUDED]
        for index, part in enumerate(self.excluded):
            struct.pack_into("=2Q", self._map, _HEADER.size + 16 * index, *part)
        struct.pack_into("=Q", self._map, _EXCLUDED, len(self.excluded))
        struct.pack_into("=Q", self._map, _ENABLED, 1)

    @property
    def lost(self) -> int:
        """How many blocks or jumps were not recorded because there was no room."""
        return int(struct.unpack_from("=Q", self._map, _LOST)[0])

    @property
    def used(self) -> int:
        """How many bytes all records take."""
        return int(struct.unpack_from("=Q", self._map, _USED)[0]) - _FIRST_RECORD

    def read(self) -> Iterator[Block]:
        """Gives the blocks that ran since the last time."""
        self._find_more()
        for block in self._blocks:
            if block.take(self._memory):
                yield block

    def total(self, parts: Sequence[Part]) -> int:
        """Returns how many instructions of some parts have run since `begin`; `read` is not affected."""
        self._find_more()
        return sum(
            sum(self._memory[start : start + 8 * len(block.instructions)].cast("Q"))
            for block in self._blocks
            if any(first <= block.address < last for first, last in parts)
            for start in (block.at + _RECORD.size,)
        )

    def _find_more(self) -> None:
        while self._at + _RECORD.size <= SIZE:
            length, address, count, size, _, target, _ = _RECORD.unpack_from(self._map, self._at)
            if not length:  # the record is not complete yet, or there is none
                return
            sizes_at = self._at + _RECORD.size + 8 * count
            sizes = self._memory[sizes_at : sizes_at + count]
            starts = [address, *(address + end for end in accumulate(sizes))][:count]
            code = bytes(self._memory[sizes_at + count : sizes_at + count + size])
            self._blocks.append(Block(address, code, starts, target, self._at))
            self._at += length

    def close(self) -> None:
        """Gives the memory back. Safe to call again."""
        if self.fd >= 0:
            self._memory.release()
            self._map.close()
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
