"""Tests the reader of a ring buffer, and captures, on memory that the test lays out as the kernel does."""

import os
import struct
import warnings
from contextlib import closing

import pytest
from ring_memory import BUSY, SIZE, Memory

from pytest_bpfmaps import CaptureTimeoutError, NoValueError
from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.events import ring_fill
from pytest_bpfmaps.events.capture import Capture
from pytest_bpfmaps.events.ringbuf_memory import DISCARD
from pytest_bpfmaps.events.ringbuf_reader import Ring
from pytest_bpfmaps.events.shared_reader import SharedSource

NUMBER = IntCodec("__u64", 8, signed=False)
NO_MAP = 0  # no map has this id
STEP = 16  # bytes of a number with its header
MOST = SIZE // STEP - 1  # so many numbers fit: the kernel keeps one byte
TAKEN = "another reader, .* reads this ring buffer, too, and took {} bytes: end it"


class Numbers(Memory):
    """A ring buffer with numbers in it."""

    def add_numbers(self, *numbers: int, flags: int = 0) -> None:
        for number in numbers:
            self.add(struct.pack("=Q", number), flags)


@pytest.fixture
def memory():
    made = Numbers()
    yield made
    os.close(made.fd)


@pytest.fixture
def ring(memory):
    with closing(Ring(memory.fd, SIZE, "ring 'r'", NO_MAP)) as made:
        yield made


@pytest.fixture
def newest(memory):
    """Reads a ring whose new records overwrite the oldest ones."""
    with closing(Ring(memory.fd, SIZE, "ring 'r'", NO_MAP, overwrites=True)) as made:
        yield made


@pytest.fixture
def capture(memory):
    """Makes a capture of the ring."""
    made = []

    def capture(**options):
        def source():
            return Ring(memory.fd, SIZE, "ring 'r'", NO_MAP, **options)

        made.append(Capture(SharedSource(NO_MAP, source), NUMBER, "ring 'r'"))
        return made[-1]

    yield capture
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about other readers
        for each in made:
            each.close()


def numbers(records):
    return [struct.unpack("=Q", each)[0] for each in records]


def position(memory):
    """Returns how far the consumer has read, as the kernel sees it."""
    return struct.unpack("=Q", os.pread(memory.fd, 8, 0))[0]


# a ring that keeps its records until they are read


def test_what_is_read_is_given_back(memory, ring):
    memory.add_numbers(1, 2)
    memory.add_numbers(3, flags=DISCARD)
    memory.add(b"a longer record.")
    assert [bytes(each) for each in ring.drain()] == [b"\1" + bytes(7), b"\2" + bytes(7), b"a longer record."]
    assert position(memory) == 3 * STEP + 24
    assert (ring.taken, ring.times_full, ring.overwritten) == (0, 0, 0)


def test_a_record_that_is_not_submitted_holds_up_the_others(memory, ring):
    memory.add_numbers(1)
    memory.add_numbers(2, flags=BUSY)
    memory.add_numbers(3)
    assert numbers(ring.drain()) == [1]
    assert numbers(ring.drain()) == []
    memory.head(STEP, 8)
    assert numbers(ring.drain()) == [2, 3]


@pytest.mark.parametrize(("count", "full"), [(MOST, 1), (MOST - 1, 0)])
def test_it_counts_the_looks_at_a_full_ring(memory, monkeypatch, count, full):
    monkeypatch.setattr(ring_fill, "_peaks", {})
    with closing(Ring(memory.fd, SIZE, "ring 'r'", 5)) as ring:
        memory.add_numbers(*range(count))
        assert numbers(ring.drain()) == list(range(count))
        assert ring.times_full == full
        memory.add_numbers(1)
        assert numbers(ring.drain()) == [1]
        assert ring.times_full == full
    assert ring_fill.take_peak(5) == ring_fill.Peak(count * STEP, bool(full))


def test_another_reader_is_noticed_before_and_while_it_reads(memory, ring):
    assert ring.others() is None
    memory.add_numbers(1, 2, 3)
    memory.consumed(2 * STEP)
    assert numbers(ring.drain()) == [3]
    assert ring.taken == 2 * STEP
    memory.add_numbers(4)
    memory.add(b"a longer record.")
    records = ring.drain()
    assert numbers([next(records)]) == [4]
    memory.consumed(3 * STEP)  # it has read the number, too
    assert [bytes(each) for each in records] == [b"a longer record."]
    assert ring.taken == 3 * STEP
    assert position(memory) == 4 * STEP + 24
    assert ring.others() == (
        "another reader, in this process or in one that /proc hides, reads this ring buffer, too, "
        f"and took {3 * STEP} bytes"
    )


def test_the_map_may_be_closed_first(memory):
    fd = os.dup(memory.fd)
    ring = Ring(fd, SIZE, "ring 'r'", NO_MAP)
    os.close(fd)
    memory.add_numbers(1)
    before = os.listdir("/proc/self/fd")
    ring.wait(-1)
    assert numbers(ring.drain()) == [1]
    ring.close()
    ring.close()
    assert len(os.listdir("/proc/self/fd")) == len(before) - 3, "a descriptor, and one of each mapping"


# a ring that overwrites


def test_the_newest_are_read(memory, newest):
    memory.add_numbers(0, 1, 2)
    memory.add_numbers(3, flags=DISCARD)
    memory.add(b"a longer record.")
    memory.overwritten(STEP)
    assert [each[:8] for each in newest.drain()] == [b"\1" + bytes(7), b"\2" + bytes(7), b"a longer"]
    assert (newest.overwritten, newest.taken, newest.times_full) == (STEP, 0, 0)
    assert position(memory) == 4 * STEP + 24
    memory.add_numbers(5, 6)
    memory.add_numbers(7, flags=BUSY)
    assert numbers(newest.drain()) == [5, 6]
    assert list(newest.drain()) == []
    assert position(memory) == 6 * STEP + 24
    memory.overwritten(7 * STEP + 24)
    assert list(newest.drain()) == []
    assert newest.overwritten == 2 * STEP, "the one that was not submitted is overwritten"


def test_it_has_the_whole_of_each_record(memory, newest):
    memory.add(bytes(range(200)))
    memory.add(bytes(range(100, 200)))
    assert list(newest.drain()) == [bytes(range(200)), bytes(range(100, 200))]
    assert newest.overwritten == 0


def test_what_is_overwritten_between_two_records(memory, newest):
    memory.add_numbers(1, 2, 3, 4)
    records = newest.drain()
    assert numbers([next(records)]) == [1]
    memory.overwritten(3 * STEP)
    assert numbers(records) == [4]
    assert newest.overwritten == 2 * STEP
    assert position(memory) == 4 * STEP


# captures


def test_a_capture_has_what_comes_after_it(memory, capture):
    memory.add_numbers(1)
    with capture() as events:
        memory.add_numbers(2, 3)
        assert events == [2, 3]
        assert not events == [2]  # noqa: SIM201
        assert (repr(events), events[-1], events[:1], list(events)) == ("[2, 3]", 3, [2], [2, 3])
        with pytest.raises(IndexError, match=r"no record 2 from ring 'r': 2 were captured"):
            _ = events[2]
        memory.add_numbers(4)
    memory.add_numbers(5)
    assert events == [2, 3, 4]
    assert len({events: 1}) == 1
    assert events != iter([2, 3, 4])


def test_two_captures_share_the_reader(memory, capture):
    first = capture()
    memory.add_numbers(1)
    second = capture()
    memory.add_numbers(2)
    assert (list(second), list(first)) == ([2], [1, 2])
    first.close()
    memory.add_numbers(3)
    assert (list(second), list(first)) == ([2, 3], [1, 2])
    second.close()
    memory.add_numbers(4)
    third = capture()
    assert list(third) == []
    memory.add_numbers(5)
    assert (list(third), list(second)) == ([5], [2, 3])


def test_a_later_capture_does_not_count_the_losses_of_an_earlier_one(memory, capture):
    first = capture()
    memory.add_numbers(*range(MOST))
    assert len(first) == MOST
    memory.add_numbers(1)
    memory.consumed(SIZE)
    second = capture()
    with pytest.raises(CaptureTimeoutError, match="cannot know all records from ring 'r': 255 came here"):
        len(first)
    memory.add_numbers(2)
    assert list(second) == [2]
    assert second.lost == second.missed == 0
    with pytest.raises(NoValueError, match="cannot count the lost records from ring 'r': the buffer"):
        _ = first.lost
    second.expect(count=1)


@pytest.mark.parametrize(
    ("own", "call", "message"),
    [
        (1, lambda e: e.wait(2, timeout=0), "waited 0 s for 2 records from ring 'r': 1 came"),
        (
            0,
            lambda e: e.expect_none(within=0),
            "cannot know that no record with any fields came from ring 'r'",
        ),
        (1, len, "cannot know all records from ring 'r': 1 came here"),
        (
            1,
            lambda e: e.expect(count=1, timeout=0),
            "cannot know that no more than 1 record with any fields came from ring 'r'",
        ),
    ],
)
def test_what_another_reader_took_is_said_once(memory, capture, own, call, message):
    events = capture()
    memory.add_numbers(*range(own + 1))
    memory.consumed(STEP)
    with pytest.raises(CaptureTimeoutError, match=f"{message}(.|\\n)*{TAKEN.format(STEP)}"):
        call(events)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        events.close()


@pytest.mark.parametrize("own", [0, 1])
def test_at_the_end_it_is_a_warning(memory, capture, own):
    events = capture()
    memory.add_numbers(1, 2)
    memory.consumed((2 - own) * STEP)
    with pytest.warns(UserWarning, match="not all records from ring 'r' came to the test: another reader"):
        events.close()


def test_overwritten_records_are_no_reason_for_a_warning(memory, capture):
    events = capture(overwrites=True)
    memory.add_numbers(1, 2)
    memory.overwritten(STEP)
    assert list(events) == [2]
    with pytest.raises(CaptureTimeoutError, match=f"newer records have overwritten {STEP} bytes"):
        events.wait(2, timeout=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        events.close()
