"""Tests hash and LRU hash maps: the dict protocol, the kernel's verbs, batches."""

import errno

import pytest

from pytest_bpfmaps import (
    BPF_ANY,
    BPF_EXIST,
    BPF_NOEXIST,
    ClosedError,
    MapError,
    MapOverflowError,
    MapTypeError,
    MapValueError,
    UnsupportedError,
)

TYPES = ["hash", "lru_hash", pytest.param("rhash", marks=pytest.mark.bpf_requires("rhash"))]
POINT = "struct point { __s32 x, y; }; struct stats { __u64 count; char comm[16]; };"


@pytest.fixture(params=TYPES)
def m(request, make_map, bpf):
    if request.param == "rhash":  # the type requires a flag
        return bpf.create_map("rhash", key="u32", value="u64", max_entries=64, name="the_map")
    return make_map(request.param, max_entries=64)


def test_behaves_like_a_dict(m):
    assert len(m) == 0
    assert 1 not in m
    m[1] = 10
    m[2] = 20
    assert m[1] == 10
    assert 1 in m
    assert len(m) == 2
    assert sorted(m) == [1, 2]
    assert sorted(m.keys()) == [1, 2]
    assert sorted(m.values()) == [10, 20]
    assert sorted(m.items()) == [(1, 10), (2, 20)]
    assert dict(m.items()) == m.snapshot() == {1: 10, 2: 20}
    assert m.get(1) == 10
    assert m.get(9) is None
    assert m.get(9, 0) == 0
    del m[1]
    assert m == {2: 20}
    assert m != {2: 21}
    assert m != {2: 20, 3: 30}
    m.clear()
    assert m == {}


def test_a_missing_key_is_a_key_error_that_lists_some(m):
    m[7] = 70
    for read in (lambda: m[8], lambda: m.lookup_elem(8), lambda: m.delete_elem(8)):
        with pytest.raises(
            KeyError, match=r"(?s)no key 8 in map 'the_map' \((lru_|r)?hash\).*its keys: 7"
        ) as caught:
            read()
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(KeyError):
        del m[8]


def test_update_flags(m):
    m.update_elem(1, 10, BPF_NOEXIST)
    with pytest.raises(MapError, match=r"cannot update 1 .*exists already \(EEXIST\)") as caught:
        m.update_elem(1, 11, BPF_NOEXIST)
    assert caught.value.errno == errno.EEXIST
    m.update_elem(1, 12, BPF_EXIST)
    with pytest.raises(KeyError):
        m.update_elem(2, 20, BPF_EXIST)
    m.update_elem(2, 20, BPF_ANY)
    assert m == {1: 12, 2: 20}


def test_next_key_walks_all_keys(m):
    m.update_batch({k: k for k in range(5)})
    seen = []
    key = m.get_next_key()
    while True:
        seen.append(key)
        try:
            key = m.get_next_key(key)
        except KeyError:
            break
    assert sorted(seen) == list(range(5))


def test_batches(m):
    m.update_batch({k: k * 2 for k in range(50)})
    assert sorted(m.lookup_batch()) == [(k, k * 2) for k in range(50)]
    m.delete_batch(range(48))
    assert m == {48: 96, 49: 98}
    with pytest.raises(MapError, match="cannot update 48 ") as caught:
        m.update_batch([(1, 1), (48, 0)], flags=BPF_NOEXIST)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(KeyError, match="no key 1000 "):
        m.delete_batch([49, 1000])
    assert m == {1: 1, 48: 96}


def test_a_full_map_says_how_to_make_it_larger(make_map):
    m = make_map("hash", max_entries=2)
    m[1] = m[2] = 0
    with pytest.raises(
        MapError, match=r"(?s)the map is full: max_entries is 2 \(E2BIG\).*max_entries=\{'the_map'"
    ) as caught:
        m[3] = 0
    assert caught.value.errno == errno.E2BIG


def test_deleting_while_iterating(m):
    m.update_batch({k: k for k in range(60)})
    for key in m:
        del m[key]
    assert len(m) == 0


def test_wrong_values_never_reach_the_kernel(m):
    with pytest.raises(
        OverflowError, match=r"cannot store 8589934592 in map 'the_map' key \((__)?u32\): it is out of range"
    ):
        m[2**33] = 1
    with pytest.raises(MapOverflowError, match="from 0 to 18446744073709551615"):
        m[1] = -1
    with pytest.raises(TypeError, match=r"it is str, not an int"):
        m[1] = "1"
    with pytest.raises(MapTypeError):
        _ = "x" in m
    assert m == {}


def test_structs_as_keys_and_values(make_map):
    m = make_map("hash", "struct point", "struct stats", prologue=POINT)
    m[{"x": 1, "y": -1}] = {"count": 5, "comm": "cat"}
    m[2, -2] = (6, "dog")
    assert m[1, -1].comm == "cat"
    assert m[{"x": 2, "y": -2}] == {"count": 6, "comm": "dog"}
    assert m == {(1, -1): {"count": 5, "comm": "cat"}, (2, -2): {"count": 6, "comm": "dog"}}
    assert {p.x for p in m} == {1, 2}
    with pytest.raises(
        MapValueError, match=r"cannot store field 'cout' in map 'the_map' value \(struct stats\)"
    ):
        m[3, 3] = {"cout": 1}


def test_lookup_and_delete(m, bpf_kernel):
    m[1] = 10
    if bpf_kernel.version < (5, 14):  # no probe finds it: each map type got it in another release
        with pytest.raises(UnsupportedError, match=r"hash maps: since 5\.14"):
            m.lookup_and_delete_elem(1)
        return
    value = m.lookup_and_delete_elem(1)
    assert value == 10
    assert 1 not in m


def test_pop_and_update(m):
    m.update({1: 10, 2: 20})
    m.update([(2, 30)])
    assert m == {1: 10, 2: 30}
    assert m.pop(2) == 30
    assert m.pop(2, "none") == "none"
    with pytest.raises(KeyError):
        m.pop(2)
    assert m == {1: 10}


def test_freeze_is_final(m):
    m[1] = 1
    m.freeze()
    assert m[1] == 1
    with pytest.raises(MapError, match="frozen") as caught:
        m[1] = 2
    assert caught.value.errno == errno.EPERM


def test_attributes(make_map):
    m = make_map("hash", "__u16", "__u64", max_entries=33)
    assert (str(m.type), m.name, m.key_size, m.value_size, m.max_entries) == ("hash", "the_map", 2, 8, 33)
    assert m.id > 0
    assert m.fd > 2


def test_by_id_the_same_map_is_found_with_its_types(bpf, make_map):
    m = make_map("hash", "struct point", "struct stats", prologue=POINT)
    m[1, 2] = (3, "x")
    other = bpf.map_by_id(m.id)
    assert other == {(1, 2): {"count": 3, "comm": "x"}}
    assert other == m
    assert len({other, m}) == 1
    younger = make_map("hash", "struct point", "struct stats", prologue=POINT)
    assert other != younger
    assert younger != other
    with pytest.raises(MapError, match=r"map id 4294967295: (.*\n)*.*bpftool map list"):
        bpf.map_by_id(2**32 - 1)


def test_a_closed_map_says_so(bpf, load_code):
    code = """struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1);
              __type(key, int); __type(value, int); } m SEC(".maps");"""
    loaded = load_code(code)
    m = loaded.maps.m
    loaded.close()
    loaded.close()
    with pytest.raises(ClosedError, match="cannot use map 'm': it is closed"):
        _ = m[1]
