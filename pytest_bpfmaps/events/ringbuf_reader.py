"""Reads a BPF ring buffer in place, as its consumer."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

from pytest_bpfmaps.events.records import Block
from pytest_bpfmaps.events.ring_fill import peak_of
from pytest_bpfmaps.events.ringbuf_memory import (
    BUSY,
    DISCARD,
    HEADER_SIZE,
    OVERWRITTEN,
    RingMemory,
    record_step,
)
from pytest_bpfmaps.kernel.map_holders import holders_of_map
from pytest_bpfmaps.kernel.open_resources import forget, note


class Ring:
    """The consumer's end of one ring buffer map. `size` is its `max_entries`, in bytes.

    With `overwrites` (``BPF_F_RB_OVERWRITE``, Linux 6.19) a full ring takes new records, too. They overwrite
    the oldest records, and a third position in the ring's memory says up to where.
    """

    lost = 0  # the kernel does not count them: bpf_ringbuf_reserve only returns NULL to the program
    missed = padding = 0

    def __init__(self, fd: int, size: int, on: str, map_id: int, *, overwrites: bool = False) -> None:
        self.times_full = self.taken = self.overwritten = 0
        self._peak = peak_of(map_id)
        self._map_id = map_id
        self._overwrites = overwrites
        self._mask = size - 1
        self._memory = memory = RingMemory(fd, size, on, writable=True)
        self._consumer_position, self._positions = memory.consumer_position, memory.positions
        self._data, self._words = memory.data, memory.words
        self._mine = self._consumer_position[0]  # the position of this reader
        self._poll = select.poll()
        self._fd = os.dup(fd)  # the map may be closed before this reader
        self._poll.register(self._fd, select.POLLIN)
        note(f"capture of {on}", [self._fd])

    def drain(self) -> Iterator[bytes]:
        """Takes the committed records out of the ring, and yields them, oldest first."""
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[Block]:
        """Takes the committed records out of the ring, in blocks of records of equal length.

        It stops at a record that a program has reserved but not submitted yet, because the kernel keeps the
        order.
        """
        if self._overwrites:
            yield from self._newest()
            return
        position = self._look_for_others()
        if self._memory.is_full(position, self._positions[0] - position):
            self.times_full += 1
            self._peak.was_full = True
        while position < (produced := self._positions[0]):
            at = position & self._mask
            length = self._words[at >> 2]
            if length & BUSY:
                return
            size = length & ~DISCARD
            step = record_step(size)
            block = None
            if length == size:
                block = self._memory.equal_records(at, size, produced - position)
            self._give_back(position, position := position + step * (block.count if block else 1))
            if block:
                yield block

    def _look_for_others(self) -> int:
        """Returns the position to read at; if another reader has moved it, counts the bytes that it took."""
        position = self._consumer_position[0]
        self.taken += abs(position - self._mine)
        self._mine = position
        return position

    def _give_back(self, start: int, end: int) -> None:
        self._peak.unread = max(self._peak.unread, min(self._positions[0] - start, self._mask + 1))
        if self._consumer_position[0] != start:
            self._look_for_others()
        self._consumer_position[0] = self._mine = end

    def _newest(self) -> Iterator[Block]:
        """Yields the records of a ring that overwrites, without those that were overwritten meanwhile."""
        position = self._look_for_others()
        while True:
            oldest = self._positions[OVERWRITTEN]
            if position < oldest:
                self.overwritten += oldest - position
                position = oldest
            if position >= self._positions[0]:
                break
            at = position & self._mask
            length = self._words[at >> 2]
            size = length & ~(BUSY | DISCARD)
            raw = bytes(self._data[at + HEADER_SIZE : at + HEADER_SIZE + min(size, self._mask)])
            if self._positions[OVERWRITTEN] > position:
                continue
            if length & BUSY:
                break
            position += record_step(size)
            if length == size:
                self._give_back(self._mine, position)
                yield Block(raw, 0, size, size, 1)
        self._give_back(self._mine, position)

    def others(self) -> str | None:
        """Returns a sentence about other readers of the ring; None if there were none."""
        if not self.taken:
            return None
        holders = holders_of_map(self._map_id)
        readers = [h for h in holders if h.maps] or holders
        who = " and ".join(map(str, readers)) or "another reader, in this process or in one that /proc hides,"
        return f"{who} read{'s' * (len(readers) < 2)} this ring buffer, too, and took {self.taken} bytes"

    def wait(self, seconds: float) -> None:
        """Sleeps until a record is there, for at most `seconds`."""
        self._poll.poll(max(seconds, 0) * 1000)

    def close(self) -> None:
        """Unmaps the memory. Safe to call again."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        forget(fd)
        os.close(fd)
        self._memory.close()
