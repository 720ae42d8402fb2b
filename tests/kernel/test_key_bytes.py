"""Tests keys with equal values and different bytes: the kernel has an element for each."""

import random

import pytest
from alike_keys import ALIKE, write

from pytest_bpfmaps import MapKeyError, MapValueError
from pytest_bpfmaps.btf import Record

TYPES = ["hash", "lru_hash", "percpu_hash", "lru_percpu_hash"]


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
        assert "-> clear all bytes of the key" in str(caught.value)


def test_zero_and_not_a_number(filled):
    """A key is compared by its bytes, as a lookup does it: 0.0 and -0.0 differ, and a NaN equals itself."""
    nan = float("nan")
    for raw, value in ((bytes(7) + b"\x80", -0.0), (bytes(6) + b"\xf8\x7f", nan), (bytes(8), 0.0)):
        m = filled("double", [raw])
        for each in (-0.0, nan, 0.0):
            assert (each in m) is (each in m.snapshot()) is (m == {each: 0}) is (repr(each) == repr(value))


@pytest.mark.parametrize("key", ALIKE)
def test_a_comparison_agrees_with_a_lookup(filled, key):
    size = len(ALIKE[key][0])
    choice = random.Random(7)
    raws = [bytes(choice.choices((0, 1, 2, 0x55, 0x80, 0x7F, 0xFF), k=size)) for _ in range(60)]
    m = filled(key, [])  # one map for all, because making one takes longer than all comparisons
    for raw in (bytes(size), b"\1" * size, b"\xff" * size, *ALIKE[key], *raws):
        m.clear()
        write(m, raw, 0)
        assert len(m) == 1
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
