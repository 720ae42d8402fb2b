"""Tests which values no field of a type can have; a test that waits for one would prove nothing."""

import ipaddress
from unittest import mock

import pytest
from test_btf_values import compile_types

from pytest_bpfmaps.btf.comparison import never_equal, same

TYPES = """
#include <linux/types.h>
#include <linux/in6.h>
#include <linux/in.h>
enum kind { OPEN, EXIT = 5 };
struct pair { __u32 a, b; };
struct all {
    __u8 byte; __s16 number; __u64 big; _Bool flag; enum kind kind; float ratio; double exact; int part : 5;
    __be32 saddr; __be32 v6[4]; struct in_addr in; struct in6_addr in6; __u8 mac[6]; char name[8];
    __s16 list[3]; struct pair pair; char names[2][4]; struct pair *pointer; __int128 wide;
};
struct all all;
"""
IP, IP6 = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fe80::1")
POSSIBLE = {
    "byte": [0, 255, 5.0, True],
    "number": [-32768, 32767],
    "big": [2**64 - 1],
    "flag": [True, 0, 1.0],
    "kind": ["EXIT", 5, 99],
    "ratio": [0.1, 3, float("nan")],
    "exact": [0.1],
    "part": [-16, 15],
    "saddr": [IP, 5],
    "v6": [IP6, [1, 2, 3, 4], [1, 2]],
    "in": [IP, {"s_addr": 1}, (1,)],
    "in6": [IP6],
    "mac": [b"\2\0\0\0\0\1", [2, 0, 0, 0, 0, 1], b"\2", [2]],
    "name": ["abc", b"abc", "abcdefgh", "a\0"],
    "list": [[1, 2, -3], (1, 2), [], range(3), [mock.ANY, 2, 3]],
    "pair": [(1, 2), {"a": 1, "b": 2}, {"a": 1}, bytes(8), (mock.ANY, 2)],
    "names": [["a", "bcde"], ["a"]],
    "pointer": [5],
    "wide": [2**126],
}
IMPOSSIBLE = {
    "byte": [256, -1, "5", b"\5", None, 5.5, [5], IP.packed],
    "number": [65531, "x"],
    "big": [-1, 2**64],
    "flag": [2, "yes", None],
    "kind": [2**32, b"EXIT", 0.5],
    "ratio": ["0.1", None],
    "part": [16, -17, None],
    "saddr": ["10.0.0.1", b"\n\0\0\1", -1],
    "v6": ["fe80::1", [1, 2, 3, 4, 5], [1, -2]],
    "in": ["10.0.0.1", 5, b"\1"],
    "in6": ["fe80::1"],
    "mac": ["02:00:00:00:00:01", bytes(7), [256] * 6, 5],
    "name": ["abcdefghi", 5, None],
    "list": [[1, 2, 3, 4], [70000], "abc", 5, ["x"]],
    "pair": [(1,), 5, "a", [1, 2, 3]],
    "names": [["abcde"], "ab"],
    "pointer": ["x", -1],
    "wide": [2**127],
}


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    return compile_types(TYPES, tmp_path_factory.mktemp("never")).struct("all").by_name


@pytest.mark.parametrize("name", POSSIBLE)
def test_values_that_a_field_can_have(fields, name):
    for wanted in POSSIBLE[name]:
        assert never_equal(fields[name].codec, wanted) is None, wanted


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_values_that_no_field_has(fields, name):
    codec = fields[name].codec
    for wanted in IMPOSSIBLE[name]:
        assert never_equal(codec, wanted) is not None, wanted
        for raw in (b"\0", b"\1", b"\xff", b"5", b"x"):
            assert not same(codec, codec.decode(raw * codec.size), wanted), (raw, wanted)


def test_a_number_that_float_rounds_is_equal(fields):
    ratio, exact = fields["ratio"].codec, fields["exact"].codec
    assert same(ratio, ratio.decode(ratio.encode(0.1, "")), 0.1)
    assert not same(ratio, ratio.decode(ratio.encode(0.1, "")), 0.1001)
    assert not same(exact, ratio.decode(ratio.encode(0.1, "")), 0.1)
    assert not same(ratio, ratio.decode(ratio.encode(0.1, "")), 1e99)
    assert not same(ratio, ratio.decode(ratio.encode(0.1, "")), float("nan"))
