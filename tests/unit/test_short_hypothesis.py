"""Tests records that are cut at every byte, against ctypes: the fields before the cut do not change."""

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_bpfmaps import NoValueError
from pytest_bpfmaps.btf.absent_fields import shortened
from pytest_bpfmaps.btf.array_codecs import ArrayCodec, BytesCodec
from pytest_bpfmaps.btf.codec import IntCodec
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.btf.record import StructCodec

INTS = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}
members = st.lists(st.tuples(st.sampled_from(list(INTS)), st.integers(0, 5)), min_size=1, max_size=6)


def make(shape):
    """Returns the same struct for ctypes and as a codec. An element count of 0 is a plain integer."""
    fields = [(f"f{i}", INTS[size] * count if count else INTS[size]) for i, (size, count) in enumerate(shape)]
    layout = type("layout", (ctypes.Structure,), {"_fields_": fields})
    made = []
    for i, (size, count) in enumerate(shape):
        element = IntCodec(f"u{size}", size, signed=False)
        array = BytesCodec("a", count, filled=True) if size == 1 else ArrayCodec("a", element, count)
        made.append(Field(f"f{i}", array if count else element, getattr(layout, f"f{i}").offset))
    return layout, StructCodec("struct s", ctypes.sizeof(layout), made)


@settings(deadline=None)
@given(members, st.data())
def test_cut_anywhere(shape, data):
    layout, codec = make(shape)
    whole = data.draw(st.binary(min_size=codec.size, max_size=codec.size))
    sent = data.draw(st.integers(0, codec.size - 1))
    truth = layout.from_buffer_copy(whole)
    record = shortened(codec, sent).decode_rest(whole[:sent])
    assert bytes(record) == whole[:sent]
    for i, (size, count) in enumerate(shape):
        name, start = f"f{i}", getattr(layout, f"f{i}").offset
        there = min(count or 1, max(0, (sent - start) // size))
        if count and (start < sent or (start == sent and i == len(shape) - 1)):
            assert list(record[name]) == list(getattr(truth, name))[:there]
        elif there and not count:
            assert record[name] == getattr(truth, name)
        else:
            with pytest.raises(NoValueError, match=name):
                _ = record[name]


@settings(deadline=None)
@given(members, st.data())
def test_padding_is_never_taken_for_sent(shape, data):
    """A number that is shown was sent, however many of the last 7 bytes the kernel added."""
    layout, codec = make([*shape, (8, 0), (8, 0)])
    sent = data.draw(st.integers(1, codec.size - 9))
    came = (sent + 4 + 7) // 8 * 8 - 4
    record = shortened(codec, came, 7).decode_rest(bytes(came))
    for i, (size, count) in enumerate(shape):
        if not count and getattr(layout, f"f{i}").offset + size > sent:
            with pytest.raises(NoValueError):
                _ = record[f"f{i}"]
