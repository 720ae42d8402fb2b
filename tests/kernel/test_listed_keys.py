"""Tests keys that a map lists: if their bytes say more than their values, they are found by their bytes."""

import copy
import json
import pickle

import pytest
from alike_keys import ALIKE, write

from pytest_bpfmaps import MapKeyError
from pytest_bpfmaps.btf import Record


@pytest.mark.parametrize("key", ALIKE)
def test_a_listed_key_is_found(filled, key):
    raws = ALIKE[key]
    for some in (raws, raws[1:2]):
        m = filled(key, some)
        for listed, value in m.items():
            assert listed in m
            assert m[listed] == m.get(listed) == value
            assert some[value] == bytes(m._encode_key(listed))
            m[listed] = value + 100
        assert sorted(m.values()) == [n + 100 for n in range(len(some))]
        one, *rest = list(m)
        del m[one]
        assert len(m) == len(rest)
        m.delete_batch(rest)
        assert m == {}


@pytest.mark.parametrize("key", ALIKE)
def test_the_walk_by_get_next_key_loses_none(filled, key):
    raws = ALIKE[key]
    m = filled(key, raws)
    found, at = {}, None
    for _ in raws:
        at = m.get_next_key(at)
        found[at] = m[at]
    assert sorted(found.values()) == list(range(len(raws)))
    with pytest.raises(MapKeyError):
        m.get_next_key(at)


@pytest.mark.parametrize("key", ALIKE)
def test_the_bytes_of_a_key_are_a_key(filled, key):
    """What a test that means the bytes writes."""
    odd = ALIKE[key][1]
    m = filled(key, [odd])
    if isinstance(m._key.decode(odd), Record | str):
        assert odd in m
        assert m == {odd: 0}
        assert m.snapshot()[odd] == m[odd] == 0
        assert m.keys() == {odd}
        assert m != {ALIKE[key][0]: 0}


def test_a_record_of_an_event_is_its_bytes(filled):
    """A record that was read elsewhere keeps its padding, and is looked up by it."""
    clean, odd, _ = ALIKE["struct flow"]
    m = filled("struct flow", [clean])
    record = m._key.decode(odd)
    assert record == m._key.decode(clean)
    assert record not in m
    assert m != {record: 0}
    assert not m >= {record: 0}
    assert m.keys() != {record}
    m = filled("struct flow", [odd])
    assert record in m
    assert m == {record: 0}
    assert m >= {record: 0}


def test_a_listed_key_differs_from_its_value(filled):
    m = filled("struct flow", [ALIKE["struct flow"][1]])
    (key,) = m
    for plain in ({"ip": 1, "port": 80}, (1, 80), m._key.decode(ALIKE["struct flow"][0])):
        with pytest.raises(AssertionError) as caught:
            assert key == plain
        assert "bytes 6 to 7: 5555" in str(caught.value)
    with pytest.raises(AssertionError) as caught:
        assert key == {"ip": 1, "port": 80}
    assert "-> clear all bytes of the key" in str(caught.value)
    assert (key.ip, key.port) == (1, 80)


def test_a_union_is_plain_when_one_of_its_members_is(make_map):
    """The address is known whole, although the text has bytes after its NUL."""
    prologue = "union who { __u32 ip; char name[4]; __u8 pad[8]; };"
    m = make_map("hash", "union who", prologue=prologue.replace("__u8 pad[8]; ", ""))
    write(m, b"a\0\0\7", 1)
    (key,) = m
    assert key == m._key.decode(b"a\0\0\7")
    assert key in m
    assert m == {key: 1}
    assert "<byte" not in repr(key)


@pytest.mark.parametrize("key", ["char[8]", "_Bool", "double", "char[2][4]"])
def test_copies_lose_none(filled, key):
    seen = filled(key, ALIKE[key]).snapshot()
    for other in (pickle.loads(pickle.dumps(seen)), copy.deepcopy(seen), copy.copy(seen), {**seen}):
        assert len(other) == len(ALIKE[key])
        assert seen == other


@pytest.mark.parametrize("key", ["__u32", "__u8[4]", "__u32[2]", "struct exact", "struct exact[2]"])
def test_a_key_that_its_value_says_whole_is_plain(make_map, key):
    name, _, rest = key.partition("[")
    prologue = "struct exact { __u32 a, b; };" + f"typedef {name} key_t_{'[' + rest if rest else ''};"
    m = make_map("hash", "key_t_", prologue=prologue)
    write(m, bytes(m.key_size), 1)
    plain = type(m._key.decode(bytes(m.key_size)))
    for keys in (m, m.keys(), m.snapshot(), [m.get_next_key()]):
        assert [type(k) for k in keys] == [plain]


def test_one_element_with_zeros_in_its_padding_has_a_plain_key(filled):
    for key in ("char[8]", "_Bool", "double", "char[2][4]"):
        m = filled(key, ALIKE[key][:1])
        assert [type(k) for k in m.snapshot()] == [type(m._key.decode(ALIKE[key][0]))]


def test_listed_keys_print_the_bytes_that_the_value_does_not_show(filled):
    keys = list(filled("char[8]", ALIKE["char[8]"]))
    assert json.dumps(keys) == '["cat", "cat", "cat"]'
    assert sorted(map(str, keys)) == ["cat", "cat", "cat"]
    assert sorted(map(str, filled("_Bool", ALIKE["_Bool"]))) == ["True", "True", "True"]
    shown = {"'cat'", "'cat' <bytes 4 to 7: 55555555>", "'cat' <byte 7: 01>"}
    assert set(map(repr, keys)) == shown
    shown = {"True", "True <byte 0: 02>", "True <byte 0: ff>"}
    assert set(map(repr, filled("_Bool", ALIKE["_Bool"]))) == shown
    shown = {"{'a': 1, 'b': 1}", "{'a': 1, 'b': 1} <byte 0: 29>"}
    assert set(map(repr, filled("struct bits", ALIKE["struct bits"]))) == shown
