"""Tests that a read array refuses changes: it is a copy, and the kernel would not see them."""

import copy
import json
import pickle

import pytest

from pytest_bpfmaps import MapTypeError

CODE = """
struct counts { int n; int at[2][2]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, int[3]); } plain SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, struct counts); } records SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, int[3]); } by_cpu SEC(".maps");
int hist[4];
"""
CHANGES = {
    "[]": lambda v: v.__setitem__(1, 5),
    "del": lambda v: v.__delitem__(1),
    "+=": lambda v: v.__iadd__([1]),
    "*=": lambda v: v.__imul__(2),
    "append": lambda v: v.append(1),
    "extend": lambda v: v.extend([1]),
    "insert": lambda v: v.insert(0, 1),
    "pop": lambda v: v.pop(),
    "remove": lambda v: v.remove(0),
    "clear": lambda v: v.clear(),
    "sort": lambda v: v.sort(),
    "reverse": lambda v: v.reverse(),
}


@pytest.fixture
def obj(load_code):
    return load_code(CODE)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_the_kernel_would_not_see_is_refused(obj, change):
    maps = obj.maps
    for read in (
        lambda: maps.plain[0],
        lambda: maps.records[0].at,
        lambda: maps.records[0].at[1],
        lambda: maps.by_cpu[0][0],
        lambda: maps.plain.snapshot()[0],
        lambda: obj.globals.hist,
    ):
        before = list(read())
        with pytest.raises(MapTypeError, match=r"(?s)they are a copy.*values = list\(m\[key\]\)"):
            CHANGES[change](read())
        assert read() == before


def test_the_remedy(obj):
    m = obj.maps.plain
    values = list(m[0])
    values[1] = 5
    m[0] = values
    assert m[0] == [0, 5, 0]
    values = list(obj.globals.hist)
    values[1] = 5
    obj.globals.hist = values
    assert obj.globals.hist == [0, 5, 0, 0]


def test_is_a_list_to_everybody_who_reads(obj):
    m = obj.maps.plain
    m[0] = [3, 1, 2]
    value = m[0]
    assert isinstance(value, list)
    assert value == [3, 1, 2] == value
    assert value == (3, 1, 2)
    assert hash(value) == hash((3, 1, 2))
    assert repr(value) == "[3, 1, 2]" == json.dumps(value)
    assert sorted(value) == [1, 2, 3]
    for other in (
        copy.copy(value),
        copy.deepcopy(value),
        pickle.loads(pickle.dumps(value)),
        value[:],
    ):
        assert type(other) is list
        assert other == value
    assert type(obj.maps.records[0]._asdict()["at"]) is list
