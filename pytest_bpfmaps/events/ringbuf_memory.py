"""The memory of a BPF ring buffer, mapped into this process.

The layout (https://docs.kernel.org/bpf/ringbuf.html, kernel/bpf/ringbuf.c) is a page with the consumer's
position, a page with the producer's position, and the data. The data is mapped twice in a row, so that no
record is split. A record has a header of 8 bytes (length with a BUSY and a DISCARD bit; page offset), and the
data, rounded up to 8 bytes.
"""

from __future__ import annotations

import mmap
import struct

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.events.records import Block
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
    """Returns how many records from `at` on have that length. It compares ever larger parts at once.

    `words` are the ring's data as 32-bit words, and `step` is the distance of two records in bytes.
    """
    word, apart, count, look = at >> 2, step >> 2, 1, 1
    header = _LENGTH.pack(size)
    while count < most:
        look = min(look * 8, most - count, 1 << 16)
        first = word + count * apart
        lengths = words[first : first + look * apart : apart].tobytes()  # a copy: the kernel may write now
        if lengths != header * look:
            return count + next(i for i in range(look) if lengths[4 * i : 4 * i + 4] != header)
        count += look
    return count


class RingMemory:
    """The pages of one ring buffer map. `size` is its `max_entries`, in bytes; `on` is its name in messages.

    `consumer_position[0]` can be changed if it is `writable`. `positions` has the producer's position first.
    `data` is the ring, twice in a row, and `words` is the same as 32-bit words. Raises `MapError` if the
    kernel refuses the mapping.
    """

    def __init__(self, fd: int, size: int, on: str, *, writable: bool) -> None:
        page = mmap.PAGESIZE
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED, access)
            self._producer = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError as e:
            raise MapError("cannot map the memory of", on=on, why=reason(e.errno or 0), errno=e.errno) from e
        # 64-bit views: a position must be read and written in one access
        self.consumer_position = memoryview(self._consumer).cast("Q")
        self.positions = memoryview(self._producer).cast("Q")
        self.data = memoryview(self._producer)[page:]
        self.words = self.data.cast("I")
        self._mask = size - 1

    def equal_records(self, at: int, size: int, available: int) -> Block:
        """Copies the record of `size` bytes at `at`, and those after it that have the same length.

        `available` is how many bytes may be read from `at` on.
        """
        step = record_step(size)
        count = count_equal(self.words, at, size, step, available // step)
        return Block(bytes(self.data[at : at + count * step]), HEADER_SIZE, step, size, count)

    def is_full(self, consumed: int, unread: int) -> bool:
        """Returns whether one more record of the size of the one at the position `consumed` has no room.

        `unread` is the number of bytes that no reader has taken. If they are less than half of the ring, the
        record is not looked at.
        """
        if 2 * unread <= self._mask:
            return False
        length = self.words[(consumed & self._mask) >> 2] & ~(BUSY | DISCARD)
        return unread + length + HEADER_SIZE > self._mask

    def close(self) -> None:
        """Unmaps the memory. Safe to call again."""
        for view in (self.consumer_position, self.positions, self.words, self.data):
            view.release()
        self._consumer.close()
        self._producer.close()
