"""Tests how much of a process's output is kept."""

from __future__ import annotations

import contextlib
import os
import time

from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.loaders.output import Collector, Stream, line_test


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=200), st.integers(1, 40))
def test_the_beginning_and_the_end(chunks, times):
    stream = Stream()
    for chunk in chunks * times:
        stream.add(chunk)
    whole = b"".join(chunks) * times
    assert stream.size == len(whole)
    if len(whole) <= (1 << 14) + (1 << 16):
        assert stream.text() == whole.decode(errors="replace")
    else:
        first, last = whole[: 1 << 14], whole[-(1 << 16) :]
        gap = f"\n[… {len(whole) - len(first) - len(last):,} bytes left out …]\n".encode()
        assert stream.text() == (first + gap + last).decode(errors="replace")
    kept = len(stream._first) + sum(map(len, stream._last))
    assert kept <= (1 << 14) + (1 << 16) + 3000


@given(st.binary(max_size=300), st.integers(1, 20))
def test_lines(data, size):
    stream = Stream()
    lines = [line for at in range(0, len(data), size) for line in stream.add(data[at : at + size])]
    assert lines == [line.decode(errors="replace") for line in data.split(b"\n")[:-1]]


def test_a_long_output_takes_little_memory():
    stream = Stream()
    for number in range(1000):
        stream.add(b"%09d\n" % number * 100)
    assert stream.size == 1_000_000
    assert len(stream._first) + sum(map(len, stream._last)) < 100_000
    assert stream.text().endswith("000000999\n")


@contextlib.contextmanager
def collecting(written: bytes):
    """Yields a collector that has read `written`, and the other end of its standard output."""
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    with contextlib.closing(Collector(out, err)) as collector, open(to_out, "wb", buffering=0) as process:
        os.close(to_err)
        process.write(written)
        while collector.stdout.encode() != written:
            time.sleep(0.001)
        yield collector, process


def test_a_line_that_comes_in_two_parts_is_returned_whole():
    with collecting(b"listening on port 12") as (collector, process):
        rest = [b"34\n"]
        found = collector.find_line(
            line_test("port"), 60, lambda: bool(rest and process.write(rest.pop()) < 0)
        )
        assert found == "listening on port 1234"
        assert collector.find_line(line_test("port"), 0, lambda: False) == found


def test_a_line_without_an_end_counts_when_nothing_more_is_waited_for():
    with collecting(b"usage: agent\npassword: ") as (collector, process):
        assert collector.find_line(line_test("password"), 0, lambda: False) == "password: "
        process.close()
        assert collector.find_line(line_test("password"), 60, lambda: False) == "password: "
        assert collector.find_line(line_test("name"), 60, lambda: True) is None
