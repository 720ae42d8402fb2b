"""Memory that is laid out as the kernel lays out a ring buffer."""

import mmap
import os
import struct

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY = 1 << 31


class Memory:
    """A file with the pages of a ring buffer. The data is there twice in a row, as the kernel maps it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self._end = 0

    def add(self, data: bytes, flags: int = 0, *, hold: bool = False) -> int:
        """Adds a record, and returns its position. With `hold`, `publish` makes it known."""
        at = self._end
        self.head(at, len(data) | flags)
        self._write(at + 8, data)
        self._end += (len(data) + 15) & ~7
        if not hold:
            self.publish()
        return at

    def publish(self) -> None:
        """Sets the producer's position."""
        os.pwrite(self.fd, struct.pack("=Q", self._end), PAGE)

    def consumed(self, position: int) -> None:
        """Sets the consumer's position."""
        os.pwrite(self.fd, struct.pack("=Q", position), 0)

    def overwritten(self, position: int) -> None:
        """Sets the position of the oldest record that was not overwritten."""
        os.pwrite(self.fd, struct.pack("=Q", position), PAGE + 16)

    def head(self, at: int, length: int) -> None:
        self._write(at, struct.pack("=II", length, 0))

    def _write(self, at: int, data: bytes) -> None:
        for copy in (0, SIZE):
            os.pwrite(self.fd, data, 2 * PAGE + copy + at % SIZE)
