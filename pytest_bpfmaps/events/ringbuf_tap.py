"""Reads a ring buffer beside the process that consumes it, and changes nothing there.

The pages of a ring buffer may be mapped read-only by anyone who has the map. What the consumer has read stays
in the ring until the program overwrites it, one whole size of the ring later. So a copy of the record at
position p was whole if afterwards ``producer_pos - p`` is still less than the ring's size: the kernel writes
the 8 bytes of a record's header before it moves ``producer_pos`` (kernel/bpf/ringbuf.c).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pytest_bpfmaps.events.records import Block
from pytest_bpfmaps.events.ringbuf_memory import (
    BUSY,
    DISCARD,
    OVERWRITTEN,
    RingMemory,
    record_step,
)
from pytest_bpfmaps.kernel.release import timeout_scale

_SHORTEST, _LONGEST = 0.0002, 0.002  # seconds between two looks
_BUSY_PART = 16  # a look that finds more than this part of the ring is followed by the next one soon


class Tap:
    """Copies the records of a ring buffer map that another process reads; `size` is its `max_entries`.

    A thread looks for records, so that few are missed while the test does something else. `missed` counts the
    bytes of those that were overwritten first. With `overwrites`, new records overwrite unread ones.
    """

    lost = taken = padding = 0

    def __init__(self, fd: int, size: int, on: str, *, overwrites: bool = False) -> None:
        self.times_full = self.missed = self.overwritten = 0
        self._overwrites = overwrites
        self._size, self._mask = size, size - 1
        self._memory = memory = RingMemory(fd, size, on, writable=False)
        self._consumer_position, self._positions = memory.consumer_position, memory.positions
        self._words = memory.words
        self._mine = self._oldest()
        self._blocks: list[Block] = []
        self._came = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._watch, name="bpfmaps-tap", daemon=True)
        self._thread.start()

    def _oldest(self) -> int:
        """Returns the position of the oldest record that can't have been overwritten: the next unread one."""
        consumed = int(self._consumer_position[0])
        return max(consumed, int(self._positions[OVERWRITTEN])) if self._overwrites else consumed

    def _is_whole(self) -> bool:
        """Returns whether nothing that was read from this tap's position on was overwritten meanwhile."""
        if self._overwrites:
            return bool(self._positions[OVERWRITTEN] <= self._mine)
        return bool(self._positions[0] - self._mine < self._size)

    def blocks(self) -> Iterator[Block]:
        """Returns the records since the last call, in blocks of records of equal length."""
        with self._came:
            if self._open:
                self._pull()
            found, self._blocks = self._blocks, []
        return iter(found)

    def drain(self) -> Iterator[bytes]:
        """Returns the same records one by one."""
        for block in self.blocks():
            yield from block

    def _pull(self) -> int:
        """Copies what is new, and returns its size in bytes."""
        start = self._mine
        self._look_if_full()
        while (produced := int(self._positions[0])) > self._mine:
            at = self._mine & self._mask
            length = self._words[at >> 2]
            size = length & ~(BUSY | DISCARD)
            step = record_step(size)
            block = None
            if length == size:
                block = self._memory.equal_records(at, size, produced - self._mine)
            if not self._is_whole():
                self._resume()
                continue
            if length & BUSY:
                break
            self._mine += step * (block.count if block else 1)
            if block:
                self._blocks.append(block)
        return self._mine - start

    def _look_if_full(self) -> None:
        """Counts a look that finds no room for one more record of the size of the oldest unread one."""
        if self._overwrites:
            return
        consumed = int(self._consumer_position[0])
        full = self._memory.is_full(consumed, int(self._positions[0]) - consumed)
        if full and self._consumer_position[0] == consumed:  # it is still the oldest unread one
            self.times_full += 1

    def _resume(self) -> None:
        """Continues at the next whole record, and counts the bytes that were overwritten."""
        oldest = self._oldest()
        if oldest <= self._mine:
            oldest = int(self._positions[0])
        self.missed += oldest - self._mine
        self._mine = oldest

    def _watch(self) -> None:
        longest = _LONGEST * timeout_scale()
        pause = longest
        while True:
            with self._came:
                self._came.wait_for(lambda: not self._open, pause)
                if not self._open:
                    return
                found = self._pull()
                if self._blocks:
                    self._came.notify_all()
            pause = _SHORTEST if found * _BUSY_PART > self._size else min(pause * 2, longest)

    def others(self) -> str | None:
        """Returns None: it does not matter to a tap that another process reads the ring."""
        return None

    def wait(self, seconds: float) -> None:
        """Sleeps until a record is there, for at most `seconds`."""
        with self._came:
            self._came.wait_for(lambda: self._blocks or not self._open, max(seconds, 0))

    def close(self) -> None:
        """Ends the thread, and unmaps the memory. Safe to call again."""
        with self._came:
            if not self._open:
                return
            self._open = False
            self._came.notify_all()
        self._thread.join()
        self._memory.close()
