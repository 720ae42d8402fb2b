"""Tests captures of a ring buffer that an agent reads: it reads on as if nobody looked."""

from __future__ import annotations

import os
import warnings

import pytest
from build_agents import AGENTS

from pytest_bpfmaps import CaptureTimeoutError, NoValueError, UnsupportedError

FRAME = bytes(64)
STEP = 24  # bytes of a record with its header

pytestmark = pytest.mark.bpf_requires("ringbuf")


class Reader:
    """An agent that reads its ring buffer when the test says so."""

    def __init__(self, agent, fifo) -> None:
        self.agent = agent
        self._fifo = fifo
        self._reads = 0

    def read(self) -> int:
        """Has it read what is there, and returns how many records it has read so far."""
        os.write(self._fifo, b"\n")
        self._reads += 1
        self.agent.wait_until(
            lambda: self.agent.stdout.count("read ") == self._reads, "waited for a read", 10, lambda: None
        )
        return int(self.agent.stdout.split()[-1])

    def send(self, count=1, mark=0) -> None:
        assert self.agent.programs.send_numbers.run(FRAME, ctx={"mark": mark}, repeat=count).retval == 0


@pytest.fixture
def start(bpf, agent_binary, tmp_path):
    fifos = []

    def start(size=4096):
        path = tmp_path / "fifo"
        os.mkfifo(path)
        made = bpf.compile(AGENTS / "ring.bpf.c", defines={"SIZE": size})
        agent = bpf.start(
            [agent_binary, "load", made, "ring", "events", "say", "on", "each", path], ready="on"
        )
        fifos.append(os.open(path, os.O_WRONLY))
        return Reader(agent, fifos[-1])

    yield start
    for each in fifos:
        os.close(each)


def numbers(events):
    assert all(e.twice == 2 * e.number for e in events)
    return [e.number for e in events]


def test_both_get_every_record(start):
    reader = start()
    reader.send(3)
    with reader.agent.maps.events.capture("event") as events:
        reader.send(2)
        assert reader.read() == 5
        events.expect(number=3, count=1)
        assert numbers(events.wait(2)) == [3, 4]
        reader.send(2)
        assert numbers(events.wait(4)) == [3, 4, 5, 6]
        assert reader.read() == 7
        events.expect_none(number=7)
    assert numbers(events) == [3, 4, 5, 6]
    assert (events.missed, events.lost) == (0, 0)


def test_the_type_is_found_without_a_name(start):
    reader = start()
    with reader.agent.maps.events.capture() as events:
        reader.send()
        assert numbers(events.wait()) == [0]


def test_the_ring_goes_round(start):
    reader = start()
    with reader.agent.maps.events.capture("event") as events:
        for turn in range(1, 21):
            reader.send(100)
            assert len(events.wait(100 * turn)) == 100 * turn
            assert reader.read() == 100 * turn
    assert numbers(events) == list(range(2000))


def test_discarded_records_are_left_out(start):
    reader = start()
    with reader.agent.maps.events.capture("event") as events:
        reader.send(10, mark=3)
        assert reader.read() == 6
        assert numbers(events.wait(6)) == [1, 2, 4, 5, 7, 8]


def test_what_it_missed_is_counted(start, monkeypatch):
    monkeypatch.setattr("pytest_bpfmaps.events.ringbuf_tap._LONGEST", 1000.0)  # no thread looks
    reader = start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with reader.agent.maps.events.capture("event") as events:
            for _ in range(5):
                reader.send(100)
                reader.read()
            reader.send(100)
            assert events.missed == 500 * STEP
            with pytest.raises(CaptureTimeoutError) as failed:
                list(events)
    assert "was faster: 12000 bytes of records were overwritten before they could be copied" in str(
        failed.value
    )


def test_a_tap_that_missed_something_knows_nothing_for_certain(start, monkeypatch):
    monkeypatch.setattr("pytest_bpfmaps.events.ringbuf_tap._LONGEST", 1000.0)
    reader = start()
    events = reader.agent.maps.events.capture("event")
    for _ in range(3):
        reader.send(100)
        reader.read()
    reader.send(5)
    assert events.expect(number=302)[0].twice == 604
    with pytest.warns(UserWarning, match=r"not all records from map 'events'.*overwritten before"):
        events.close()
    monkeypatch.undo()
    with reader.agent.maps.events.capture("event") as events:
        reader.send(1)
        assert numbers(events.wait()) == [305]


@pytest.mark.parametrize(("more", "missed"), [(27, 0), (28, 100)])
def test_records_just_before_they_are_overwritten(start, monkeypatch, more, missed):
    """A record that begins a whole size before the producer's end may have the header of the next one."""
    monkeypatch.setattr("pytest_bpfmaps.events.ringbuf_tap._LONGEST", 1000.0)  # no thread looks
    reader = start()
    send = reader.agent.programs.send_wide
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with reader.agent.maps.events.capture("wide") as events:
            send.run(FRAME, repeat=100)
            reader.read()
            send.run(FRAME, repeat=more)  # 128 records of 32 bytes fill the ring
            assert events.missed == missed * 32
            assert numbers(events._records) == list(range(missed, 100 + more))


def test_a_full_ring(start):
    reader = start()
    with reader.agent.maps.events.capture("event") as events:
        reader.send(200)
        assert len(events.wait(170)) == 170
        with pytest.raises(NoValueError, match="the buffer was full"):
            _ = events.lost
        assert reader.read() == 170


@pytest.mark.parametrize("size", [4096, 1 << 18])
def test_a_reader_that_spins(bpf, agent_binary, size):
    """All that the kernel took is either seen, once and in order, or counted as missed."""
    made = bpf.compile(AGENTS / "ring.bpf.c", defines={"SIZE": size})
    agent = bpf.start([agent_binary, "load", made, "ring", "events", "say", "on", "spin"], ready="on")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with agent.maps.events.capture("event") as events:
            for _ in range(5):
                agent.programs.send_numbers.run(FRAME, ctx={"mark": 7}, repeat=20_000)
    globals = agent.maps["ring.bss"][0]
    seen = numbers(events._records)
    assert seen == sorted(set(seen))
    assert globals.sent == 100_000
    taken = globals.sent - globals.refused
    discarded = range(0, 100_000, 7)
    if events.missed == 0 and globals.refused == 0:
        assert seen == [n for n in range(100_000) if n % 7]
    assert not set(seen) & set(discarded)
    assert len(seen) * STEP + events.missed <= taken * STEP
    assert (taken - len(seen) - len(discarded)) * STEP <= events.missed


def test_taking_records_away_is_still_possible(bpf, start):
    reader = start()
    with reader.agent.maps.events.capture("event", tap=False) as events:
        reader.send(2)
        assert numbers(events.wait(2)) == [0, 1]
        assert reader.read() == 0
    mine = bpf.load(AGENTS / "ring.bpf.c", defines={"SIZE": 4096})
    with mine.maps.events.capture("event", tap=True) as seen, mine.maps.events.capture("event") as taken:
        mine.programs.send_numbers.run(FRAME)
        assert numbers(seen.wait()) == numbers(taken.wait()) == [0]


@pytest.mark.bpf_requires("perf_event_array")
def test_perf_buffers(bpf, agent_binary):
    made = bpf.compile(AGENTS / "network.bpf.c")
    agent = bpf.start([agent_binary, "load", made, "wait"], ready="waiting")
    with pytest.raises(UnsupportedError) as failed:
        agent.maps.samples.capture("event")
    assert "cannot capture the records of map 'samples' (perf_event_array): the agent has" in str(
        failed.value
    )
    assert "a ring buffer (Linux 5.8)" in str(failed.value)
    with bpf.map_by_id(agent.maps.samples.id).capture("event") as events:
        agent.programs.send_event.run(FRAME, ctx={"mark": 6})
        assert events.wait()[0].mark == 6
