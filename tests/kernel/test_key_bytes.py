"""Tests keys with equal values and different bytes: the kernel has an element for each."""

import copy
import json
import pickle
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_bpfmaps import MapKeyError, MapValueError
from pytest_bpfmaps.btf import Record
from pytest_bpfmaps.libbpf import ffi, lib

PROLOGUE = """
struct flow { __u32 ip; __u16 port; };
struct bits { __u8 a:3; __u8 b:2; };
struct deep { struct { char name[3]; __u32 n; } in[1]; _Bool on; };
struct choice { union { struct { __u8 kind; __u32 n; }; __u8 first; }; };
struct prefix { __u32 prefixlen; __u8 zone; __u16 net; };
"""
# keys of each type with equal values
ALIKE = {
    "struct flow": (b"\1\0\0\0\x50\0\0\0", b"\1\0\0\0\x50\0\x55\x55", b"\1\0\0\0\x50\0\0\1"),
    "char[8]": (b"cat\0\0\0\0\0", b"cat\0UUUU", b"cat\0\0\0\0\1"),
    "_Bool": (b"\1", b"\2", b"\xff"),
    "double": (bytes(8), bytes(7) + b"\x80"),
    "struct bits": (b"\x09", b"\x29"),
    "struct deep": (b"ab\0\0\5\0\0\0\1\0\0\0", b"ab\0\7\5\0\0\0\1\0\0\0", b"ab\0\0\5\0\0\0\2\0\0\0"),
    "struct choice": (b"\1\0\0\0\2\0\0\0", b"\1\7\7\7\2\0\0\0"),
    "struct flow[2]": (bytes(16), bytes(15) + b"\1"),
    "char[2][4]": (b"ab\0\0cd\0\0", b"ab\0\0cd\0\1"),
}
TYPES = ["hash", "lru_hash", "percpu_hash", "lru_percpu_hash"]


@pytest.fixture
def filled(make_map):
    """Makes a map with these keys; the n-th has the value n. It writes bytes, without the codecs."""

    def fill(key, raws, type="hash", max_entries=64, **options):
        name, _, rest = key.partition("[")
        prologue = PROLOGUE + f"typedef {name} key_t_{'[' + rest if rest else ''};"
        m = make_map(type, "key_t_", prologue=prologue, max_entries=max_entries, **options)
        for n, raw in enumerate(raws):
            write(m, raw, n)
        return m

    return fill


def write(m, raw, n):
    assert len(raw) == m.key_size
    value = n.to_bytes(8, "little") * (m._value_bytes // 8)
    assert lib.bpf_map_update_elem(m.fd, ffi.from_buffer(raw), ffi.from_buffer(value), 0) == 0


def number(value):
    return value if isinstance(value, int) else value[0]


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("key", ALIKE)
def test_no_view_loses_an_element(filled, key, type):
    raws = ALIKE[key]
    m = filled(key, raws, type)
    expected = list(range(len(raws)))
    assert len(m) == len(raws)
    for view in (m, m.keys(), m.values(), m.items(), m.snapshot(), m.lookup_batch(), m.snapshot().copy()):
        assert len(list(view)) == len(raws)
    for values in (m.values(), m.snapshot().values(), dict(m).values(), dict(m.items()).values()):
        assert sorted(number(v) for v in values) == expected
    assert sorted(number(v) for _, v in m.lookup_batch()) == expected
    assert len({*m}) == len({*m.snapshot()}) == len(raws)
    assert sorted(number(m[k]) for k in m) == expected
    if "percpu" in type:
        assert sorted(m.sum().values()) == [n * len(next(iter(m.values()))) for n in expected]
        plain = m._key.decode(raws[0])
        with pytest.raises(MapValueError, match="cannot decide which element"):
            _ = m.sum()[plain]


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


@pytest.mark.parametrize("type", ["hash", "percpu_hash"])
@pytest.mark.parametrize("key", ALIKE)
def test_a_comparison_fails(filled, key, type):
    m = filled(key, ALIKE[key], type)
    plain = m._key.decode(ALIKE[key][0])
    for n in range(len(ALIKE[key])):
        assert m != {plain: n}
        assert not m >= {plain: n}
        assert not m <= {plain: n}
        assert {plain: n} != m.snapshot()
        assert m.keys() != {plain: n}.keys()
        assert m.items() != {plain: n}.items()
    with pytest.raises(AssertionError) as caught:
        assert m <= {plain: [0, 0]}
    assert "elements have this key" in str(caught.value)
    with pytest.raises(AssertionError) as caught:
        assert m == {plain: 0}
    text = str(caught.value)
    count = len(ALIKE[key])
    assert f"{count} elements have this key: their padding differs (uninitialised bytes?)" in text
    assert "__builtin_memset(&key, 0, sizeof(key))" in text
    with pytest.raises(MapValueError, match=f"{count} elements have this key"):
        m.snapshot()[plain]
    assert plain in m.snapshot()
    seen = m.snapshot()
    for each in list(seen):
        if m._encode_key(each) != ALIKE[key][0]:
            del seen[each]
    assert seen[plain] == seen[next(iter(seen))]  # the only one that is left


@pytest.mark.parametrize("key", ALIKE)
def test_equal_to_itself(filled, key):
    m = filled(key, ALIKE[key])
    assert m == m.snapshot() == dict(m.items())
    assert m >= m.snapshot()
    assert m <= m.snapshot()
    changed = m.snapshot()
    changed[next(iter(changed))] = 99
    assert m != changed


@pytest.mark.parametrize("key", ALIKE)
def test_the_message_on_a_missing_key_says_it(filled, key):
    clean, *others = ALIKE[key]
    m = filled(key, others)
    plain = m._key.decode(clean)
    if isinstance(plain, Record):
        plain = plain._asdict()
    head = f"{len(others)} element{'s have' if len(others) > 1 else ' has'} this key: "
    for attempt in (lambda: m[plain], lambda: m.delete_elem(plain)):
        with pytest.raises(MapKeyError) as caught:
            attempt()
        assert head in str(caught.value)
        assert "padding differs (uninitialised bytes?)" in str(caught.value)
        assert "__builtin_memset" in str(caught.value)


@pytest.mark.parametrize("key", ALIKE)
@pytest.mark.parametrize("type", TYPES)
def test_one_element_with_odd_bytes_is_not_its_value(filled, key, type):
    m = filled(key, [ALIKE[key][1]], type)
    plain, value = m._key.decode(ALIKE[key][0]), m.snapshot().popitem()[1]
    seen = m.snapshot()
    for each in (m, seen, m.keys(), dict(m), list(m), {*m}):
        assert plain not in each
    for each in (m, seen):
        assert each != {plain: value}
        assert not each >= {plain: value}
        assert not each <= {plain: value}
        assert each.get(plain) is None
        assert each.keys() != {plain}
        assert each.items() != {plain: value}.items()
        with pytest.raises(MapKeyError, match=r"1 element has this key: its padding differs .*\n.*memset"):
            _ = each[plain]
    assert dict(m) != {plain: value}
    assert dict(m.items()) != {plain: value}
    assert list(m) != [plain]
    assert {*m} != {plain}
    assert m.get_next_key() != plain
    for left, right in ((m, {plain: value}), (seen, {plain: value}), ({plain: value}, m)):
        with pytest.raises(AssertionError) as caught:
            assert left == right
        assert "1 element has this key: its padding differs (uninitialised bytes?): byte" in str(caught.value)
        assert "-> make every byte of the key known" in str(caught.value)


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
    assert "-> make every byte of the key known" in str(caught.value)
    assert (key.ip, key.port) == (1, 80)


def test_zero_and_not_a_number(filled):
    """A key is compared by its bytes, as a lookup does it: 0.0 and -0.0 differ, and a NaN equals itself."""
    nan = float("nan")
    for raw, value in ((bytes(7) + b"\x80", -0.0), (bytes(6) + b"\xf8\x7f", nan), (bytes(8), 0.0)):
        m = filled("double", [raw])
        for each in (-0.0, nan, 0.0):
            assert (each in m) is (each in m.snapshot()) is (m == {each: 0}) is (repr(each) == repr(value))


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


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.parametrize("key", ALIKE)
def test_a_comparison_agrees_with_a_lookup(filled, key, data):
    size = len(ALIKE[key][0])
    some_bytes = st.lists(st.sampled_from((0, 1, 2, 0x55, 0x80, 0x7F, 0xFF)), min_size=size, max_size=size)
    raw = bytes(data.draw(some_bytes))
    m = filled(key, [raw])
    plain = m._key.decode(m._key.encode(m._key.decode(raw), "")) if key != "struct choice" else None
    if isinstance(plain, Record):
        plain = tuple(plain._asdict().values()) if key in ("struct flow", "struct bits") else None
    if plain is not None:
        found = plain in m
        assert (m == {plain: 0}) is found
        assert (m >= {plain: 0}) is found
        assert (plain in m.snapshot()) is found
        assert (m.get(plain) == 0) is found
        assert (m.snapshot().get(plain) == 0) is found
        assert (m.keys() == m._key.listed(m._encode_key(plain))) is False  # a key is no set
        assert (list(m) == [m._key.listed(m._encode_key(plain))]) is found


def test_random_keys_of_a_large_map(filled):
    choice = random.Random(14)
    for key, (first, *_) in ALIKE.items():
        raws = list({bytes(choice.choices((0, 1, 0x55), k=len(first))) for _ in range(900)})
        m = filled(key, raws, max_entries=1024)
        seen = m.snapshot()
        assert len(seen) == len(m) == len(raws)
        assert len(list(seen)) == len(raws)
        assert {m._encode_key(k): v for k, v in seen.items()} == {raw: n for n, raw in enumerate(raws)}
        m.update_batch(seen)
        assert len(m) == len(raws)


def test_longest_prefix_match(load_code):
    m = load_code("""
    struct prefix { __u32 prefixlen; __u8 zone; __u16 net; };
    struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 8);
             __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, struct prefix);
             __type(value, __u64); } the_map SEC(".maps");
    """).maps.the_map
    raws = [b"\x20\0\0\0\1\0\2\0", b"\x20\0\0\0\1\7\2\0"]
    for n, raw in enumerate(raws):
        write(m, raw, n)
    assert len(m) == len(list(m)) == len(m.items()) == 2
    assert m != {(32, 1, 2): 0}
    assert sorted(m[k] for k in m) == [0, 1]
    for key in list(m):
        del m[key]
    assert m == {}
    write(m, raws[1], 5)
    assert (32, 1, 2) not in m
    assert m != {(32, 1, 2): 5}
    assert not m >= {(32, 1, 2): 5}
    assert m == {raws[1]: 5}
    m.clear()
    write(m, b"\x08\0\0\0\1\7\2\3", 6)  # the kernel looks at the first 8 bits only
    assert list(m) == [(8, 1, 0)]
    assert (8, 1, 0) in m
    assert m == {(8, 1, 0): 6}
    assert m == {(8, 1, 9): 6}


def test_maps_of_maps(load_code):
    obj = load_code("""
    struct flow { __u32 ip; __u16 port; };
    struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
                   __type(key, __u32); __type(value, int); };
    struct inner one SEC(".maps");
    struct inner two SEC(".maps");
    struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 8); __type(key, struct flow);
             __array(values, struct inner); } outer SEC(".maps");
    """)
    outer, one, two = obj.maps.outer, obj.maps.one, obj.maps.two
    clean, odd, _ = ALIKE["struct flow"]
    outer[clean] = one
    assert outer == {(1, 80): one}
    outer[odd] = two
    assert len(outer) == len(list(outer)) == len(outer.items()) == 2
    assert {v.id for v in outer.values()} == {one.id, two.id}
    for inner in (one, two):
        assert outer != {(1, 80): inner}
        assert not outer >= {(1, 80): inner}
    for key in list(outer):
        del outer[key]
    assert outer == {}
    outer[odd] = two
    with pytest.raises(MapKeyError, match="1 element has this key: its padding differs"):
        outer[1, 80]
    for each in (outer, outer.snapshot()):
        assert (1, 80) not in each
        assert each != {(1, 80): two}
        assert not each >= {(1, 80): two}
    assert outer == {odd: two}
    with pytest.raises(AssertionError, match="1 element has this key: its padding differs"):
        assert outer == {(1, 80): two}


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


def test_the_remedy(load_code):
    """The program is the same, but sets the key to zero first."""
    code = """
    struct flow { __u32 ip; __u16 port; };
    struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16); __type(key, struct flow);
             __type(value, __u64); } flows SEC(".maps");
    static __always_inline void count(char before)
    {
        struct flow key;
        __builtin_memset(&key, before, sizeof(key)); /* what was on the stack */
        REMEDY
        key.ip = 1;
        key.port = 80;
        __u64 one = 1, *n = bpf_map_lookup_elem(&flows, &key);
        if (n)
            *n += 1;
        else
            bpf_map_update_elem(&flows, &key, &one, 0);
    }
    SEC("tc") int first(struct __sk_buff *skb) { count(0); return 0; }
    SEC("tc") int second(struct __sk_buff *skb) { count(0x55); return 0; }
    """
    for remedy, fits in (("", False), ("__builtin_memset(&key, 0, sizeof(key));", True)):
        obj = load_code(code.replace("REMEDY", remedy))
        for program in (obj.programs.first, obj.programs.second):
            program.run(bytes(64))
        assert (obj.maps.flows == {(1, 80): 2}) is fits
        assert sum(obj.maps.flows.values()) == 2
