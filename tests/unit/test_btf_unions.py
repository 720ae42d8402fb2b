"""Tests unions: members that disagree, alternatives, tuples and hashes; arrays after a struct."""

import copy
import ipaddress
import itertools

import pytest
from test_btf_values import compile_types, there_and_back

from pytest_bpfmaps import MapTypeError, MapValueError

TYPES = """
#include <linux/types.h>
#include <stdbool.h>
struct value { union { struct { __u32 lo; __u32 hi; }; __u64 all; }; __u32 n; };
struct address { union { __u32 v4; __u8 v6[16]; }; __u16 port; };
struct deep {
    union { struct { __u8 kind; union { __u16 small; struct { __u8 a; __u8 b; }; }; }; __u32 word; };
};
struct loose { union { char name[8]; __u8 raw[8]; bool flag; }; __u8 other; };
struct bits { union { struct { __u8 low:3; __u8 high:5; }; __u8 byte; }; };
struct named { union { __u32 i; float f; } u; __u32 n; };
struct lists { int n; int at[2]; struct { int x, y; } points[1]; __u8 mac[3]; };
struct a { long a; long b[]; };
struct padded { long a; char c; short b[]; };
struct before { struct { long a; }; long b[]; };
struct in { char a; long b[0]; };
struct nested { long a; struct in in; long z; };
struct ends { long a; struct padded in; };
struct empty { long a; struct {} e[3]; long f[2][0]; long b; };
struct either { long a; union { struct { struct {} e; long fl[]; }; struct { long first; long low[]; }; }; };
struct shared { union { struct { __u8 low:4; }; bool flag; }; };
struct number { union { float f; __u32 bits; }; };
struct shared shared; struct number number;
struct value value; struct address address; struct deep deep; struct loose loose; struct bits bits;
struct named named; struct lists lists;
struct a va; struct padded padded; struct before before; struct nested nested; struct ends ends;
struct empty empty; struct either either;
"""
WHERE = "map 'm' value"


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    return compile_types(TYPES, tmp_path_factory.mktemp("unions"))


@pytest.fixture
def value(codecs):
    return there_and_back(codecs.struct("value"), {"lo": 1, "hi": 2, "n": 3})


class TestWriting:
    @pytest.mark.parametrize("name", ["lo", "hi", "all"])
    def test_members_that_disagree_are_refused(self, codecs, value, name):
        edited = value._asdict()
        edited[name] += 98
        with pytest.raises(
            MapValueError, match=r"(?s)share bytes of a union.*leave the others out"
        ) as caught:
            codecs.struct("value").encode(edited, WHERE)
        assert f"'{name}'" in str(caught.value)
        assert "'all'" in str(caught.value)

    def test_the_remedy(self, codecs, value):
        edited = value._asdict()
        edited["lo"] = 99
        del edited["all"]
        assert there_and_back(codecs.struct("value"), edited) == {"lo": 99, "hi": 2, "n": 3}

    @pytest.mark.parametrize("order", [*itertools.permutations(["lo", "hi", "all"])])
    def test_members_that_agree_are_written_in_any_order(self, codecs, order):
        given = {"lo": 5, "hi": 6, "all": 6 << 32 | 5}
        for count in (1, 2, 3):
            chosen = {n: given[n] for n in order[:count]}
            assert all(there_and_back(codecs.struct("value"), chosen)[n] == v for n, v in chosen.items())

    @pytest.mark.parametrize(
        "raw", [b"cat\0UUUU\7", b"\2\0\0\0\0\0\0\0\0", b"cat\0\0\0\0\1\0", bytes(9), b"\xff" * 9]
    )
    def test_what_was_read_is_written_back_bit_by_bit(self, codecs, raw):
        codec = codecs.struct("loose")
        record = codec.decode(raw)
        assert codec.encode(record._asdict(), WHERE) == raw
        assert codec.encode(record, WHERE) == raw
        assert codec.encode(tuple(record), WHERE) == raw

    @pytest.mark.parametrize("raw", [b"\x10", b"\x01", b"\xf0", b"\0", b"\x0f"])
    def test_a_bool_whose_bits_are_others(self, codecs, raw):
        codec = codecs.struct("shared")
        record = codec.decode(raw)
        again = codec.decode(codec.encode(record._asdict(), WHERE))
        assert (again.flag, again.low) == (record.flag, record.low) == (raw != b"\0", raw[0] & 15)

    def test_numbers_that_are_not_the_same_bits(self, codecs):
        codec = codecs.struct("number")
        for raw in (b"\1\0\xa0\x7f", b"\0\0\0\x80", b"\0\0\xc0\xff"):  # a signalling NaN, -0.0, a NaN
            record = codec.decode(raw)
            assert codec.encode(record._asdict(), WHERE) == codec.encode(tuple(record), WHERE) == raw

    def test_alternatives_in_alternatives(self, codecs):
        codec = codecs.struct("deep")
        assert codec.encode({"kind": 1, "a": 2, "b": 3}, WHERE) == b"\1\0\2\3"
        assert codec.encode({"kind": 1, "small": 0x302}, WHERE) == b"\1\0\2\3"
        with pytest.raises(MapValueError, match="share bytes"):
            codec.encode({"kind": 1, "small": 0x302, "a": 9}, WHERE)
        with pytest.raises(MapValueError, match="share bytes"):
            codec.encode({"kind": 1, "word": 2}, WHERE)

    def test_bitfields(self, codecs):
        codec = codecs.struct("bits")
        assert codec.encode({"low": 5, "high": 1, "byte": 0b1101}, WHERE) == b"\x0d"
        with pytest.raises(MapValueError, match="share bytes"):
            codec.encode({"low": 4, "byte": 0b1101}, WHERE)

    def test_an_address_for_bytes_in_a_union(self, codecs):
        record = there_and_back(codecs.struct("address"), {"v6": ipaddress.ip_address("fe80::1"), "port": 80})
        assert record == {"v6": ipaddress.ip_address("fe80::1"), "port": 80}


class TestComparing:
    def test_an_alternative_is_enough(self, value):
        assert value == {"lo": 1, "hi": 2, "n": 3}
        assert value == {"all": 2 << 32 | 1, "n": 3}
        assert value == {"lo": 1, "hi": 2, "all": 2 << 32 | 1, "n": 3}

    @pytest.mark.parametrize(
        "other",
        [
            {"lo": 1, "n": 3},
            {"hi": 2, "n": 3},
            {"n": 3},
            {"lo": 1, "hi": 0, "n": 3},
            {"lo": 0, "all": 2 << 32 | 1, "n": 3},
            {"all": 2 << 32 | 1},
        ],
    )
    def test_half_of_one_is_not(self, value, other):
        assert value != other

    def test_deep(self, codecs):
        deep = codecs.struct("deep").decode(b"\1\0\2\3")
        assert deep == {"kind": 1, "small": 0x302} == deep
        assert deep == {"kind": 1, "a": 2, "b": 3}
        assert deep == {"word": 0x3020001}
        for half in ({"kind": 1}, {"small": 0x302}, {"kind": 1, "a": 2}, {}):
            assert deep != half


TUPLES = {
    "value": [(5, 6, 7)],
    "address": [(1, b"\1" + bytes(15), 80)],
    "deep": [(1, 2, 0x20001)],
    "bits": [(5, 1)],
    "named": [((1,), 2)],
    "lists": [(1, (2, 3), ((4, 5),), b"abc")],
}


class TestTuples:
    @pytest.mark.parametrize("name", TUPLES)
    def test_round_trip_and_hash(self, codecs, name):
        codec = codecs.struct(name)
        for values in TUPLES[name]:
            record = there_and_back(codec, values)
            assert record == values == record
            assert hash(record) == hash(values)
            assert values in {record}
            assert record in {values}
            assert tuple(record) == values
            assert len(record) == len(values)
            assert codec.encode(tuple(record), WHERE) == bytes(record)

    def test_a_short_one_is_refused(self, codecs):
        with pytest.raises(MapTypeError, match="in field order: lo, hi, n"):
            codecs.struct("value").encode((5, 7), WHERE)

    def test_the_first_alternative_or_all_members(self, codecs):
        codec = codecs.struct("address")
        assert codec.encode((1, 80), WHERE) == codec.encode({"v4": 1, "port": 80}, WHERE)
        assert codec.encode((1, b"\1", 80), WHERE) == codec.encode({"v4": 1, "port": 80}, WHERE)
        with pytest.raises(MapValueError, match="share bytes"):
            codec.encode((2, b"\1", 80), WHERE)

    def test_records_of_equal_values_have_equal_hashes(self, codecs):
        padded = codecs.struct("address")
        one, other = padded.decode(bytes(20)), padded.decode(bytes(18) + b"\1\1")
        assert one == other
        assert hash(one) == hash(other)


FLEXIBLE = ["a", "padded", "before", "nested", "ends", "empty", "either"]


@pytest.mark.parametrize("name", FLEXIBLE)
def test_a_flexible_array_has_nothing_where_the_size_is_fixed(codecs, name):
    codec = codecs.struct(name)
    raw = bytes(range(1, codec.size + 1))
    record = codec.decode(raw)
    assert bytes(record) == raw
    assert codec.encode(record, WHERE) == raw
    again = codec.decode(codec.encode(record._asdict(), WHERE))
    assert again == record
    assert record == record._asdict()
    assert copy.copy(record) == record
    assert codec.decode_each(raw * 2, 0, codec.size, 2) == [record, record]
    for field in ("b", "fl", "low"):
        assert record._asdict().get(field, []) == [] or name in ("nested", "empty")
