"""Tests a tap on memory that the test lays out as the kernel does: moments that no program can hold still."""

from __future__ import annotations

import mmap
import os
import threading
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


def test_a_wait_ends_when_a_record_is_there(memory):
    tap = Tap(memory.fd, SIZE, "memory")
    thread = threading.Timer(0.05, memory.add, [b"record.."])
    thread.start()
    try:
        tap.wait(60)
        assert list(tap.drain()) == [b"record.."]
    finally:
        thread.join()
        tap.close()
    tap.wait(60)  # it is closed: nothing will come


@pytest.mark.parametrize(("count", "is_full"), [(16, True), (15, False)])
def test_it_sees_that_no_record_fits_any_more(memory, count, is_full):
    for _ in range(count):
        memory.add(bytes(240))
    tap = Tap(memory.fd, SIZE, "memory")
    try:
        assert len(list(tap.drain())) == count
        assert (tap.times_full > 0) == is_full
    finally:
        tap.close()


def test_a_ring_that_overwrites_is_read_from_its_oldest_record(memory):
    for number in range(4):
        memory.add(bytes([number]) * 8)
    memory.overwritten(16)
    tap = Tap(memory.fd, SIZE, "memory", overwrites=True)
    try:
        assert list(tap.drain()) == [b"\1" * 8, b"\2" * 8, b"\3" * 8]
        memory.add(b"\4" * 8)
        assert list(tap.drain()) == [b"\4" * 8]
        assert (tap.missed, tap.overwritten, tap.times_full) == (0, 0, 0)
    finally:
        tap.close()


def test_what_was_overwritten_before_it_was_copied_is_counted(memory):
    tap = Tap(memory.fd, SIZE, "memory")
    try:
        for number in range(SIZE // 16 + 3):
            memory.add(bytes([number & 0xFF]) * 8, hold=True)
        memory.publish()
        assert list(tap.drain()) == []
        assert tap.missed == SIZE + 48
    finally:
        tap.close()


def test_it_goes_on_where_the_other_reader_is(memory):
    tap = Tap(memory.fd, SIZE, "memory")
    try:
        for number in range(SIZE // 16 + 3):
            memory.add(bytes([number & 0xFF]) * 8, hold=True)
        memory.consumed(SIZE)
        memory.publish()
        first = SIZE // 16 & 0xFF
        assert list(tap.drain()) == [bytes([first + n]) * 8 for n in range(3)]
        assert tap.missed == SIZE
    finally:
        tap.close()
