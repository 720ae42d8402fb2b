"""Tests longest prefix match tries, with keys as networks or as (prefixlen, bytes)."""

import errno
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pytest_bpfmaps import MapError, MapTypeError, MapValueError

pytestmark = pytest.mark.bpf_requires("lpm_trie")

MAP = """
struct key {{ __u32 prefixlen; {data}; }};
struct {{
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, {max_entries});
    __type(key, struct key);
    __type(value, __u64);
}} the_map SEC(".maps");
"""
A, B, C = ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"), ip_network("10.1.2.3/32")


@pytest.fixture
def make_trie(load_code):
    def make(data="__u8 address[4]", max_entries=16):
        return load_code(MAP.format(data=data, max_entries=max_entries)).maps.the_map

    return make


@pytest.mark.parametrize("data", ["__u8 address[4]", "__u32 address", "union { __u8 b[4]; __u32 w; }"])
def test_keys_are_networks(make_trie, data):
    m = make_trie(data)
    m[A] = 1
    m[B] = 2
    m[C] = 3
    assert set(m) == {A, B, C}
    assert m == {A: 1, B: 2, C: 3}
    assert m.snapshot() == {A: 1, B: 2, C: 3}
    assert m != {A: 1, B: 2, C: 4}
    assert len(m) == 3
    del m[B]
    assert m == {A: 1, C: 3}
    m.clear()
    assert m == {}


def test_a_lookup_finds_the_longest_prefix(make_trie):
    m = make_trie()
    m[A], m[B] = 1, 2
    assert m[ip_address("10.1.9.9")] == 2
    assert m[ip_address("10.2.0.1")] == 1
    assert m[ip_network("10.1.5.0/24")] == 2
    assert m[ip_network("10.0.0.0/9")] == 1
    assert ip_address("10.1.0.1") in m
    assert ip_address("11.0.0.1") not in m
    assert m.get(ip_address("11.0.0.1"), 7) == 7
    with pytest.raises(KeyError, match=r"no key IPv4Network\('11.0.0.1/32'\)"):
        m[ip_address("11.0.0.1")]


def test_deleting_is_exact(make_trie):
    m = make_trie()
    m[A] = 1
    with pytest.raises(KeyError):
        del m[B]
    assert m == {A: 1}


def test_keys_are_ipv6_networks(make_trie):
    m = make_trie("__u8 address[16]")
    docs, host = ip_network("2001:db8::/32"), ip_network("2001:db8::1/128")
    m[docs] = 1
    m[host] = 2
    assert m == {docs: 1, host: 2}
    assert m[ip_address("2001:db8::2")] == 1
    with pytest.raises(MapValueError, match="has 4 bytes, but the key's data has 16"):
        m[A] = 1


def test_keys_are_pairs_of_prefix_length_and_bytes(make_trie):
    m = make_trie("__u8 name[8]")
    m[(8, b"abcdef")] = 1
    m[(24, b"abc")] = 2
    assert m == {(8, b"a"): 1, (24, b"abc"): 2}
    assert m[(48, b"abczzz")] == 2
    assert m[(48, b"axxxxx")] == 1
    assert sorted(length for length, _ in m) == [8, 24]
    assert all(len(data) == 8 for _, data in m)


def test_pairs_are_taken_where_keys_are_networks(make_trie):
    m = make_trie()
    m[(8, bytes([10]))] = 1
    m[(16, ip_address("10.1.0.0"))] = 2
    m[ip_interface("10.1.2.3/24")] = 3
    assert m == {A: 1, B: 2, ip_network("10.1.2.0/24"): 3}


def test_a_record_is_taken_and_given_where_the_data_has_fields(make_trie):
    m = make_trie("__u32 port; __u8 address[4]")
    m[{"prefixlen": 40, "port": 7, "address": bytes([10])}] = 1
    assert list(m) == [{"prefixlen": 40, "port": 7, "address": bytes([10, 0, 0, 0])}]
    assert m[(64, 7, bytes([10, 1, 2, 3]))] == 1


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ("__be16 port", {"prefixlen": 16, "port": 0x5000}),
        ("__u8 oui[3]", {"prefixlen": 24, "oui": b"abc"}),
        ("__be16 groups[7]", {"prefixlen": 16, "groups": [5, 0, 0, 0, 0, 0, 0]}),
    ],
)
def test_data_that_is_padded_to_the_size_of_an_address_is_none(make_trie, data, key):
    m = make_trie(data)
    m[key] = 1
    assert [repr(k) for k in m] == [repr(key)]
    (listed,) = m
    assert m[listed] == 1
    m[(32, b"\1\2\3\4")] = 2  # four bytes: the kernel compares padding, too
    assert m[(32, b"\1\2\3\4")] == 2
    assert len(list(m)) == 2
    for each in m:
        del m[each]
    assert len(m) == 0


def test_bits_after_the_prefix_do_not_tell_keys_apart(make_trie):
    m = make_trie()
    m[(8, bytes([10, 1, 2, 3]))] = 1
    assert m == {A: 1}
    assert list(m) == [A]
    m[A] = 2
    assert m == {A: 2}


def test_batches(make_trie):
    m = make_trie()
    m.update_batch({A: 1, B: 2})
    assert sorted(m.lookup_batch()) == [(A, 1), (B, 2)]
    m.delete_batch([A])
    assert m == {B: 2}


def test_wrong_keys_are_told_apart(make_trie):
    m = make_trie()
    with pytest.raises(
        MapValueError, match=r"(?s)0 to 32 bits.*IPv4 network or \(prefixlen in bits, 4 bytes\)"
    ):
        m[(33, bytes(4))] = 1
    with pytest.raises(MapValueError, match="its data has 5 bytes, not 4"):
        m[(8, bytes(5))] = 1
    with pytest.raises(MapValueError, match="has 16 bytes, but the key's data has 4"):
        m[ip_network("::/0")] = 1
    with pytest.raises(MapTypeError):
        m[8] = 1
    with pytest.raises(MapValueError, match=r"(?s)'10.0.0.0/33' .*give an IPv4 network"):
        m["10.0.0.0/33"] = 1


def test_keys_as_text(make_trie):
    m = make_trie()
    m["10.0.0.0/8"] = 1
    m["10.1.2.3"] = 2
    assert m == {A: 1, ip_network("10.1.2.3/32"): 2}
    assert m == {"10.0.0.0/8": 1, "10.1.2.3/32": 2}
    assert m["10.9.9.9"] == m.snapshot()["10.0.0.0/8"] == 1
    del m["10.0.0.0/8"]
    assert list(m) == [ip_network("10.1.2.3/32")]


def test_full(make_trie):
    m = make_trie(max_entries=2)
    m[A], m[B] = 1, 2
    with pytest.raises(MapError, match=r"(?s)full: max_entries is 2.*max_entries=") as caught:
        m[C] = 3
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("length", [-1, 33, 255])
def test_a_prefix_that_no_address_has(make_trie, length):
    m = make_trie()
    for attempt in (lambda key: m.__setitem__(key, 1), lambda key: m[key]):
        with pytest.raises(MapValueError, match="0 to 32 bits"):
            attempt((length, bytes(4)))


@pytest.mark.parametrize("size", [4, 5, 8, 259, 260, 261])
def test_a_key_that_is_refused_is_one_that_breaks_the_rule(bpf, size):
    options = {"key": size, "value": 8, "max_entries": 1, "flags": 1}
    if 4 < size <= 260:
        assert bpf.create_map("lpm_trie", **options).key_size == size
    else:
        with pytest.raises(MapError, match="a key begins with '__u32 prefixlen;', and 1 to 256 bytes"):
            bpf.create_map("lpm_trie", **options)
