"""Tests per-CPU maps whose value is a list. Its shape decides whether it is for one CPU or for all."""

import pytest

from pytest_bpfmaps import MapOverflowError, MapTypeError, MapValueError
from pytest_bpfmaps.maps import PerCpu

PROLOGUE = """
struct point { __u32 x, y; };
struct points { struct point a, b; };
typedef __u32 four_t[4];
typedef __u32 grid_t[2][2];
typedef __u8 bytes_t[4];
typedef struct point points_t[2];
typedef char names_t[2][8];
typedef __s8 signed_t[2];
"""
# a value for each type
VALUES = {
    "four_t": [1, 2, 3, 4],
    "grid_t": [[1, 2], [3, 4]],
    "bytes_t": b"\1\2\3\4",
    "points_t": [(1, 2), (3, 4)],
    "names_t": ["ab", "cd"],
    "signed_t": [-1, 1],
    "struct point": (1, 2),
    "struct points": ((1, 2), (3, 4)),
}


@pytest.fixture(params=["percpu_array", "percpu_hash"])
def make(request, make_map):
    return lambda value: make_map(request.param, value=value, prologue=PROLOGUE, max_entries=2)


@pytest.fixture
def cpus(make_map):
    m = make_map("percpu_array")
    return len(m[0])


@pytest.mark.parametrize("type", VALUES)
def test_one_value_is_for_all_cpus(make, cpus, type):
    m, value = make(type), VALUES[type]
    m[0] = value
    assert list(m[0]) == [value] * cpus
    m[0] = list(value)
    assert list(m[0]) == [value] * cpus
    m.update_batch({1: value})
    assert list(m[1]) == [value] * cpus
    assert m >= {1: [value] * cpus}


@pytest.mark.parametrize("type", VALUES)
def test_a_list_of_values_is_for_each_cpu(make, cpus, type):
    m, value = make(type), VALUES[type]
    others = [type_zero(m)] * (cpus - 1) + [value]
    for given in (others, PerCpu(others), m[0] if m.get(0) else PerCpu(others)):
        m[0] = given
        assert list(m[0]) == list(given)
    m[0] = others
    assert m[0] == others
    assert m >= {0: others}
    assert (m[0] == value) is (cpus == 1 and [value] == value)


def type_zero(m):
    zero = m._value.decode(bytes(m._value.size))
    return list(zero) if isinstance(zero, list) else zero


def test_what_is_neither_is_refused(make, cpus):
    m = make("four_t")
    for wrong in ([1, 2, 3], [[1, 2, 3, 4]] * (cpus + 1), [[1, 2, 3]] * cpus, PerCpu([1, 2, 3, 4, 5])):
        with pytest.raises(MapValueError):
            m[0] = wrong


def test_the_message_is_about_the_likely_meaning(make, cpus):
    """A tuple is one value. A list of structs has one for each CPU."""
    m = make("struct point")
    with pytest.raises(MapValueError, match="possible CPUs"):
        m[0] = [(1, 2)] * (cpus + 1)
    with pytest.raises(MapTypeError, match=f"cannot store {cpus + 2} values .*it has 2 fields"):
        m[0] = ((1, 2),) * (cpus + 2)
    with pytest.raises(MapOverflowError, match=f"value of CPU {cpus - 1}"):
        m[0] = [(1, 2)] * (cpus - 1) + [(1, 1 << 32)]


@pytest.mark.parametrize("type", ["percpu_array", "percpu_hash"])
def test_a_longer_list_is_one_value(make_map, cpus, type):
    m = make_map(type, value="more_t", prologue=f"typedef __u32 more_t[{cpus + 1}];")
    m[0] = given = list(range(cpus + 1))
    assert m[0] == [given] * cpus
    with pytest.raises(MapTypeError) as refused:
        m[0] = [*range(cpus), "x"]
    assert "possible CPUs" not in str(refused.value)


def test_what_is_said_of_all_cpus(make_map):
    m = make_map(
        "percpu_array",
        value="struct mixed",
        prologue="struct inner { __s32 n; char text[4]; }; "
        "struct mixed { __u8 small; struct inner in; __u16 pair[2]; char name[5]; };",
        max_entries=2,
    )
    first, *others = m[0]
    several = {"small": 3, "in": {"n": -7, "text": "a"}, "pair": [1, 9], "name": "xyz"}
    m[0] = [*others, several]
    assert m[0] == [*others, several]
    assert m[0].sum() == {"small": 3, "in": {"n": -7}, "pair": [1, 9]}
    assert m[0].max() == {"small": 3, "in": {"n": 0 if others else -7}, "pair": [1, 9]}
    assert m[0].min() == {"small": 0 if others else 3, "in": {"n": -7}, "pair": [0, 0] if others else [1, 9]}
    assert m.sum() == {0: m[0].sum(), 1: m[1].sum()}
    assert m[0] != m[1]
    assert m[1] == tuple(m[1]) == PerCpu([first] * len(m[1]))
    assert m[1] != tuple(m[1])[1:]
    assert len({m[1], m[1]}) == 1


@pytest.mark.parametrize("size", [*range(1, 18), 100])
@pytest.mark.parametrize("type", ["percpu_array", "percpu_hash"])
def test_values_of_any_size(bpf, cpus, type, size):
    """The kernel writes each CPU's value at a multiple of 8 bytes."""
    m = bpf.create_map(type, key="u32", value=size, max_entries=2)
    for key in range(2):
        m[key] = given = [bytes([cpu + key + 1]) * size for cpu in range(cpus)]
        assert m[key] == given
    assert m == {key: [bytes([cpu + key + 1]) * size for cpu in range(cpus)] for key in range(2)}
    m.update_batch({0: b"x" * size})
    assert m[0] == [b"x" * size] * cpus


def test_numpy_arrays_of_arrays(make, cpus):
    np = pytest.importorskip("numpy")
    m = make("four_t")
    for key in (0, 1):
        m[key] = [[cpu, 1, 2, 3 + key] for cpu in range(cpus)]
    before = m.snapshot()
    keys, values = m.to_numpy()
    assert values.shape == (2, cpus, 4)
    m.update_batch((keys, values))
    assert m == before
    m.update_batch((keys, values[:, 0]))  # one value for all CPUs
    assert m == {key: [before[key][0]] * cpus for key in (0, 1)}
    m.update_batch((keys, values.astype(np.int64) + 1))
    assert m == {key: [[cpu + 1, 2, 3, 4 + key] for cpu in range(cpus)] for key in (0, 1)}
    with pytest.raises(MapValueError, match="its shape must be"):
        m.update_batch((keys, values[:, 0, 0]))


def test_numpy_keys_that_are_arrays(make_map):
    pytest.importorskip("numpy")
    m = make_map("hash", "pair_t", "grid_t", prologue=PROLOGUE + "typedef __u32 pair_t[2];")
    m[1, 2] = [[1, 2], [3, 4]]
    m[3, 4] = [[5, 6], [7, 8]]
    before = m.snapshot()
    assert before[1, 2] == [[1, 2], [3, 4]]
    keys, values = m.to_numpy()
    m.update_batch((keys, values))
    assert m == before
    m.update_batch((keys, values.astype("int64") * 2))
    assert m == {(1, 2): [[2, 4], [6, 8]], (3, 4): [[10, 12], [14, 16]]}


def test_fields_that_are_no_numbers_are_left_out_of_sums(make, cpus):
    m = make("struct { __u32 n; char name[4]; char names[2][4]; __u8 macs[2][6]; __u32 pairs[2][2]; }")
    m[1] = {"n": 3, "name": "a", "names": ["b", "c"], "macs": [b"d", b"e"], "pairs": [[1, 2], [3, 4]]}
    total = {"n": 3 * cpus, "pairs": [[cpus, 2 * cpus], [3 * cpus, 4 * cpus]]}
    assert m[1].sum() == total
    assert m.sum()[1] == total
    assert m[1].max() == {"n": 3, "pairs": [[1, 2], [3, 4]]}


@pytest.mark.parametrize(("type", "value"), [("bytes_t", b"\1\2"), ("names_t", ["ab", "cd"])])
def test_texts_and_bytes_have_no_sum(make, type, value):
    m = make(type)
    m[1] = value
    for add_up in (m[1].sum, lambda: m.sum()[1]):
        with pytest.raises(MapTypeError, match=r"cannot add up .*, not a number\n.*m\[key\]\[cpu\]"):
            add_up()
