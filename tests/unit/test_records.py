"""Tests that captured records are a sequence like a list, whatever blocks they came in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps import NoValueError
from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.events.records import Block, Records

NUMBER = IntCodec("__u32", 4, signed=False)


def records(blocks, step=8):
    """Returns records. `blocks` has the numbers of each block. A block begins with 3 bytes of no record."""
    made = Records(NUMBER, "map 'events'")
    for numbers in blocks:
        raw = b"".join(n.to_bytes(4, "little") + b"\xff" * (step - 4) for n in numbers)
        made.add(Block(b"\xff" * 3 + raw, 3, step, 4, len(numbers)))
    return made


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=300), max_size=4), st.data())
def test_as_a_list(blocks, data):
    made, known = records(blocks), [n for numbers in blocks for n in numbers]
    assert len(made) == len(known)
    assert list(made) == known
    index = data.draw(st.integers(-len(known) - 2, len(known) + 2))
    part = data.draw(st.slices(len(known)))
    assert made[part] == known[part]
    if -len(known) <= index < len(known):
        assert made[index] == known[index]
    else:
        with pytest.raises(IndexError):
            _ = made[index]
    first = data.draw(st.integers(0, len(known) + 1))
    assert made.shown(first, first + 3) == [repr(n) for n in known[first : first + 3]]


def test_what_a_block_says_of_itself():
    assert list(Block(b"\0abcd\0efgh\0", 1, 5, 3, 2)) == [b"abc", b"efg"]


class Unreadable(IntCodec):
    def decode(self, data, offset=0):
        raise NoValueError("cannot read it", on="here", why=self.name)

    def decode_each(self, data, start, step, count):
        return [self.decode(data)]


@pytest.mark.parametrize(("why", "text"), [("so", "<cannot read it: so>"), ("", "<cannot read it>")])
def test_a_record_that_cannot_be_read_says_why(why, text):
    made = Records(Unreadable(why, 4, signed=False), "map 'events'")
    made.add(Block(bytes(4), 0, 4, 4, 1))
    assert made.shown(0, 1) == [text]
