"""Tests a tap on memory that the test lays out as the kernel does: moments that no program can hold still."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from pytest_bpfmaps.events.ringbuf_memory import count_equal
from pytest_bpfmaps.events.ringbuf_tap import Tap

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY = 1 << 31


class Memory:
    """A file with the pages of a ring buffer. The data is there twice in a row, as the kernel maps it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self._end = 0

    def add(self, data: bytes, flags: int = 0) -> int:
        """Adds a record, and returns its position."""
        at = self._end
        self.head(at, len(data) | flags)
        self._write(at + 8, data)
        self._end += (len(data) + 15) & ~7
        os.pwrite(self.fd, struct.pack("=Q", self._end), PAGE)
        return at

    def head(self, at: int, length: int) -> None:
        self._write(at, struct.pack("=II", length, 0))

    def _write(self, at: int, data: bytes) -> None:
        for copy in (0, SIZE):
            os.pwrite(self.fd, data, 2 * PAGE + copy + at % SIZE)


@pytest.fixture
def memory():
    made = Memory()
    yield made
    os.close(made.fd)


def test_it_waits_for_a_record_that_is_not_submitted(memory):
    memory.add(b"first...")
    waiting = memory.add(b"second..", BUSY)
    memory.add(b"third...")
    tap = Tap(memory.fd, SIZE, "memory")
    try:
        assert list(tap.drain()) == [b"first..."]
        assert list(tap.drain()) == []
        memory.head(waiting, 8)
        assert list(tap.drain()) == [b"second..", b"third..."]
        assert tap.missed == 0
    finally:
        tap.close()
        tap.close()


def test_it_writes_nothing(memory):
    memory.add(b"record..")
    before = os.pread(memory.fd, 4 * PAGE, 0)
    tap = Tap(memory.fd, SIZE, "memory")
    assert list(tap.drain()) == [b"record.."]
    tap.close()
    assert os.pread(memory.fd, 4 * PAGE, 0) == before


def test_lengths_that_change_while_they_are_compared() -> None:
    """The kernel writes the length of the next record meanwhile."""

    class Ring:
        def __init__(self) -> None:
            self.words = memoryview(bytearray(b"\x08\0\0\0" * 8)).cast("I")
            self.words[2] = 1 << 31 | 8  # its program has not submitted it

        def __getitem__(self, part: slice) -> Ring:
            self.part = part
            return self

        def tobytes(self) -> bytes:
            copy = self.words[self.part].tobytes()
            self.words[2] = 8
            return copy

        def __iter__(self) -> Iterator[int]:
            return iter(self.words[self.part])

    assert count_equal(Ring(), 0, 8, 4, 8) == 2  # type: ignore[arg-type]
