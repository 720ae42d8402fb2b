"""Reads the memory of a BPF ring buffer in place.

The layout (https://docs.kernel.org/bpf/ringbuf.html, kernel/bpf/ringbuf.c) is a page with the consumer's
position, a page with the producer's position, and the data. The data is mapped twice in a row, so that no
record is split. A record has a header of 8 bytes (length with a BUSY and a DISCARD bit; page offset), and the
data, rounded up to 8 bytes.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
from collections.abc import Iterator

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.events.records import Block
from pytest_bpfmaps.kernel.map_holders import holders_of_map
from pytest_bpfmaps.kernel.open_resources import forget, note
from pytest_bpfmaps.libbpf.calls import reason

BUSY = 1 << 31
DISCARD = 1 << 30
_LENGTH = struct.Struct("=I")
HEADER_SIZE = 8
OVERWRITTEN = 2  # the index of overwrite_pos, after producer_pos and pending_pos, in 64-bit words


def record_step(size: int) -> int:
    """Returns how many bytes of the ring a record of `size` bytes takes."""
    return (size + HEADER_SIZE + 7) & ~7


def count_equal(words: memoryview, at: int, size: int, step: int, most: int) -> int:
    """Returns how many records from `at` on have that length; it compares more and more at once.

    `words` are the ring's data as 32-bit words, and `step` is the distance of two records in bytes.
    """
    word, apart, count, look = at >> 2, step >> 2, 1, 1
    header = _LENGTH.pack(size)
    while count < most:
        look = min(look * 8, most - count, 1 << 16)
        first = word + count * apart
        lengths = words[first : first + look * apart : apart].tobytes()  # the kernel goes on writing
        if lengths != header * look:
            return count + next(i for i in range(look) if lengths[4 * i : 4 * i + 4] != header)
        count += look
    return count


class Ring:
    """The consumer's end of one ring buffer map. `size` is its `max_entries`, in bytes.

    With `overwrites` (``BPF_F_RB_OVERWRITE``, Linux 6.19) the program never waits for the reader: if there is
    no room, it overwrites the oldest records, and a third position says up to where.
    """

    lost = 0  # the kernel does not count them: bpf_ringbuf_reserve only returns NULL to the program
    missed = padding = 0

    def __init__(self, fd: int, size: int, on: str, map_id: int, *, overwrites: bool = False) -> None:
        self.was_full = False
        self.taken = self.overwritten = 0
        self._map_id = map_id
        self._overwrites = overwrites
        page = mmap.PAGESIZE
        self._mask = size - 1
        try:
            self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self._producer = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError as e:
            raise MapError("cannot map the memory of", on=on, why=reason(e.errno or 0), errno=e.errno) from e
        # 64-bit views: a position must be read and written in one access
        self._consumer_position = memoryview(self._consumer).cast("Q")
        self._positions = memoryview(self._producer).cast("Q")
        self._data = memoryview(self._producer)[page:]
        self._words = self._data.cast("I")
        self._mine = self._consumer_position[0]  # the position of this reader
        self._poll = select.epoll()
        self._fd = os.dup(fd)  # if the map were closed first, the poll set would lose its entry
        self._poll.register(self._fd, select.EPOLLIN)
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
        self._look_if_full(self._positions[0] - position, position & self._mask)
        while position < (produced := self._positions[0]):
            at = position & self._mask
            length = self._words[at >> 2]
            if length & BUSY:
                return
            size = length & ~DISCARD
            step = record_step(size)
            block = None
            if length == size:
                count = count_equal(self._words, at, size, step, (produced - position) // step)
                block = Block(bytes(self._data[at : at + count * step]), HEADER_SIZE, step, size, count)
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

    def _look_if_full(self, unread: int, at: int) -> None:
        """Records whether one more record would not have had room; `unread` bytes begin at `at`."""
        if 2 * unread > self._mask:
            one_more = (self._words[at >> 2] & ~(BUSY | DISCARD)) + HEADER_SIZE
            self.was_full = self.was_full or unread + one_more > self._mask

    def wait(self, seconds: float) -> None:
        """Sleeps until a record is there, for at most `seconds`."""
        self._poll.poll(max(seconds, 0))

    def close(self) -> None:
        """Unmaps the memory. Safe to call again."""
        if self._poll.closed:
            return
        self._poll.close()
        forget(self._fd)
        os.close(self._fd)
        for view in (self._consumer_position, self._positions, self._words, self._data):
            view.release()
        self._consumer.close()
        self._producer.close()
