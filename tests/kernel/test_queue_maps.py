"""Tests queues, stacks and bloom filters, which have values without keys."""

import errno

import pytest

from pytest_bpfmaps import BPF_EXIST, MapEmptyError, MapError, MapOverflowError, MapTypeError

MAP = """
struct point {{ __s32 x, y; }};
struct {{
    __uint(type, BPF_MAP_TYPE_{type});
    __uint(max_entries, {max_entries});
    __type(value, {value});
}} the_map SEC(".maps");
"""
QUEUE = pytest.param("QUEUE", marks=pytest.mark.bpf_requires("queue"))
STACK = pytest.param("STACK", marks=pytest.mark.bpf_requires("stack"))


@pytest.fixture
def make(load_code):
    def make(type, value="__u32", max_entries=3):
        return load_code(MAP.format(type=type, value=value, max_entries=max_entries)).maps.the_map

    return make


@pytest.mark.bpf_requires("queue")
def test_a_queue_gives_the_oldest_first(make):
    m = make("QUEUE")
    for value in (1, 2, 3):
        m.push(value)
    assert m.peek() == 1
    assert [m.pop(), m.pop(), m.pop()] == [1, 2, 3]


@pytest.mark.bpf_requires("stack")
def test_a_stack_gives_the_newest_first(make):
    m = make("STACK")
    for value in (1, 2, 3):
        m.push(value)
    assert m.peek() == 3
    assert m.drain() == [3, 2, 1]
    assert m.drain() == []


@pytest.mark.parametrize("type", [QUEUE, STACK])
def test_empty(make, type):
    m = make(type)
    for take in (m.pop, m.peek):
        with pytest.raises(
            IndexError, match=rf"cannot (pop|peek) from map 'the_map' \({type.lower()}\): it is empty"
        ):
            take()
        with pytest.raises(KeyError) as caught:
            take()
        assert isinstance(caught.value, MapEmptyError)
        assert caught.value.errno == errno.ENOENT
    assert not m
    m.push(1)
    assert m
    m.clear()
    assert not m


@pytest.mark.parametrize("type", [QUEUE, STACK])
def test_full(make, type):
    m = make(type)
    for value in (1, 2, 3):
        m.push(value)
    with pytest.raises(
        MapError, match=r"(?s)cannot push 4 onto map 'the_map'.*max_entries is 3.*BPF_EXIST"
    ) as caught:
        m.push(4)
    assert caught.value.errno == errno.E2BIG
    m.push(4, BPF_EXIST)
    assert sorted(m.drain()) == [2, 3, 4]


@pytest.mark.parametrize("type", [QUEUE, STACK])
def test_values_are_typed(make, type):
    m = make(type, "struct point")
    m.push({"x": 1, "y": -2})
    assert m.peek().y == -2
    assert m.pop() == {"x": 1, "y": -2}
    with pytest.raises(MapOverflowError):
        m.push((1 << 31, 0))


@pytest.mark.parametrize("type", [QUEUE, STACK])
def test_there_is_no_len_and_no_key(make, type):
    m = make(type)
    with pytest.raises(TypeError):
        len(m)
    told = rf"map 'the_map' \({type.lower()}\): maps of this type have no elements by key\n.*pop, push"
    for act in (lambda: m[0], lambda: list(m), lambda: 1 in m):
        with pytest.raises(MapTypeError, match=f"cannot read elements of {told}"):
            act()
    with pytest.raises(MapTypeError, match=f"cannot write elements of {told}"):
        m[0] = 1
    with pytest.raises(MapTypeError, match=f"cannot delete elements of {told}"):
        del m[0]
    for act in (lambda: m == [], lambda: m != [1], lambda: m == {}):
        with pytest.raises(MapTypeError, match=f"cannot compare (list|dict) with {told}"):
            act()
    assert m != "text"
    with pytest.raises(MapError) as caught:
        m.get_next_key()
    assert caught.value.errno


@pytest.mark.bpf_requires("bloom_filter")
def test_a_bloom_filter_never_forgets(make):
    m = make("BLOOM_FILTER", max_entries=1000)
    assert 0 not in m
    for value in range(1000):
        m.push(value)
    assert all(value in m for value in range(1000))
    assert sum(value in m for value in range(10_000, 11_000)) < 200  # a few of a hundred are false positives
    m.add(5000)
    assert 5000 in m
    with pytest.raises(MapOverflowError):
        m.push(1 << 32)


@pytest.mark.bpf_requires("bloom_filter")
def test_a_bloom_filter_of_structs(make):
    m = make("BLOOM_FILTER", "struct point", max_entries=100)
    m.push({"x": 1, "y": 2})
    assert (1, 2) in m
    assert (2, 1) not in m
