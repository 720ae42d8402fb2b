"""Tests a tap on memory that the test lays out as the kernel does: moments that no program can hold still."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest
from ring_memory import BUSY, SIZE, Memory

from pytest_bpfmaps.events.ringbuf_memory import count_equal
from pytest_bpfmaps.events.ringbuf_tap import Tap


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
    before = os.pread(memory.fd, 4 * mmap.PAGESIZE, 0)
    tap = Tap(memory.fd, SIZE, "memory")
    assert list(tap.drain()) == [b"record.."]
    tap.close()
    assert os.pread(memory.fd, 4 * mmap.PAGESIZE, 0) == before


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
