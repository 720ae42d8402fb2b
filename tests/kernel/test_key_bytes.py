"""Tests keys with equal values and different bytes: the kernel has an element for each."""

import copy
import json
import pickle
import random

import pytest

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
    last, *others = list(seen)
    for each in others:
        del seen[each]
    assert seen[plain] == seen[last]  # the only one that is left


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
def test_one_element_with_odd_bytes_compares_by_its_value(filled, key):
    odd = ALIKE[key][1]
    m = filled(key, [odd])
    plain = m._key.decode(odd)
    assert m == {plain: 0}
    assert list(m) == [plain]
    assert m.snapshot()[plain] == 0


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


def test_listed_keys_print_as_plain_values(filled):
    keys = list(filled("char[8]", ALIKE["char[8]"]))
    assert json.dumps(keys) == '["cat", "cat", "cat"]'
    assert repr(keys) == "['cat', 'cat', 'cat']"
    assert repr(list(filled("_Bool", ALIKE["_Bool"]))) == "[True, True, True]"


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
