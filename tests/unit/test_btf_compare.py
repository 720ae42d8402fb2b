"""Tests that comparisons take every form that can be written, flexible arrays and missing fields, too."""

import ipaddress
import sys

import pytest
from test_btf_values import compile_types

from pytest_bpfmaps.btf.absent_fields import shortened
from pytest_bpfmaps.btf.comparison import byte_swap, same
from pytest_bpfmaps.events.record_fields import field_fits

TYPES = """
#include <linux/types.h>
enum kind { OPEN, EXIT = 5 };
struct bytes { __u32 n; __u8 raw[]; };
struct kinds { __u32 n; enum kind kinds[]; };
struct text { __u32 n; char text[]; };
struct whole { __u32 n; enum kind kind; __u8 mac[6]; int pair[2]; char name[8]; };
struct bytes bytes; struct kinds kinds; struct text text; struct whole whole;
"""


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    return compile_types(TYPES, tmp_path_factory.mktemp("compare"))


def test_flexible_arrays(codecs):
    record = codecs.struct("bytes").decode_rest(b"\2\0\0\0\1\2")
    assert record == {"n": 2, "raw": b"\1\2"}
    assert record == {"n": 2, "raw": [1, 2]}
    assert record != {"n": 2, "raw": [1]}
    assert record != {"n": 2, "raw": [1, 2, 0]}
    record = codecs.struct("kinds").decode_rest(b"\2\0\0\0\5\0\0\0\0\0\0\0")
    assert record == {"n": 2, "kinds": ["EXIT", "OPEN"]}
    assert record != {"n": 2, "kinds": ["OPEN", "OPEN"]}
    assert record != {"n": 2, "kinds": ["EXIT"]}
    record = codecs.struct("text").decode_rest(b"\2\0\0\0hi")
    assert record == {"n": 2, "text": b"hi"}
    assert record != {"n": 2, "text": b"ho"}


VALUES = {"kind": ["EXIT", 5], "mac": [[1] * 6, b"\1" * 6], "pair": [[1, 2], (1, 2)], "name": ["abc", b"abc"]}


@pytest.mark.parametrize("name", VALUES)
def test_a_field_that_was_not_sent_is_equal_to_nothing(codecs, name):
    record = shortened(codecs.struct("whole"), 4).decode_rest(b"\2\0\0\0")
    assert record == {"n": 2}
    for wanted in (*VALUES[name], 3, None):
        assert record != {"n": 2, name: wanted}


@pytest.mark.filterwarnings("ignore::pytest_bpfmaps.errors.UnknownNameWarning")
@pytest.mark.parametrize("name", VALUES)
def test_all_shapes(codecs, name):
    codec = codecs.struct("whole")
    for given in VALUES[name]:
        record = codec.decode(codec.encode({name: given}, ""))
        for wanted in VALUES[name]:
            assert same(codec.by_name[name].codec, record[name], wanted)
        for other in ("OPEN", 0, None, [1, 2, 3], b"\1", "abcd", {}, object()):
            assert not same(codec.by_name[name].codec, record[name], other)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [(53255, 2000), (20480, 80), (0x0100007F, 0x7F000001), (1 << 56, 1), (256, 1), (1 << 24, 1)],
)
def test_swapped_bytes(mine, theirs):
    for pair in ((mine, theirs), (theirs, mine)):
        said = byte_swap(*pair)
        assert said is not None
        assert f"{pair[0]} is {pair[1]} with its bytes swapped" in said


@pytest.mark.parametrize(
    ("mine", "theirs"), [(1, 1), (0, 0), (1, 2), (-1, 255), (True, 256), (2.0, 512), (1, "x")]
)
def test_not_swapped(mine, theirs):
    assert byte_swap(mine, theirs) is None


def test_a_list_is_as_long_as_the_array(codecs):
    codec = codecs.struct("whole")
    record = codec.decode(codec.encode({"pair": [1, 0]}, ""))
    assert record.pair == [1, 0]
    for shorter in ([1], (1,), []):
        assert not same(codec.by_name["pair"].codec, record.pair, shorter)


def test_addresses_in_a_list_are_compared_as_one_is(codecs):
    codec = codecs.struct("whole").by_name["pair"].codec
    addresses = [ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("192.0.2.7")]
    numbers = [int.from_bytes(each.packed, sys.byteorder, signed=True) for each in addresses]
    assert same(codec, numbers, addresses)
    assert not same(codec, numbers, addresses[::-1])
    assert not same(codec, numbers, addresses[:1])


BEHIND = [
    ("abc", True, True),
    (b"abc\0", True, True),
    (b"abc\0\0\0\0\0", True, True),
    (b"abc\0xyz", False, True),
    ("abc\0xyz", False, True),
    (b"abc\0xyz\0", False, True),
    (b"abc\0xy", False, False),
    (b"abc\0xyz1", False, False),
    (b"abc\0xya", False, False),
    (b"abc\0xyz\0\0\0", False, False),  # it has nine bytes
    (b"ab\0\0xyz", False, False),
]


@pytest.mark.parametrize(
    ("wanted", "is_clean", "is_dirty"), BEHIND, ids=map(repr, [case[0] for case in BEHIND])
)
def test_bytes_behind_a_nul_are_those_that_the_kernel_has(codecs, wanted, is_clean, is_dirty):
    codec = codecs.struct("whole")
    field = codec.by_name["name"].codec
    fields = {"n": 0, "kind": 0, "mac": bytes(6), "pair": [0, 0]}
    for stored, expected in ((b"abc", is_clean), (b"abc\0xyz", is_dirty)):
        record = codec.decode(codec.encode({"name": stored}, ""))
        assert (record == {**fields, "name": wanted}) is expected
        assert field_fits(record, "name", wanted) is expected
        if b"\0x" in (wanted if isinstance(wanted, bytes) else wanted.encode()) and len(wanted) < 9:
            assert same(codec, record, (*fields.values(), wanted)) is expected
            assert not same(field, "abc", wanted)  # the bytes are not known
