"""Tests how much of a process's output is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.loaders.output import Stream


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
