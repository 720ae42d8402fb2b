"""Tests arrays, and maps with one value per CPU."""

import errno
from pathlib import Path

import pytest

from pytest_bpfmaps import ClosedError, MapError, MapValueError

STATS = "struct stats { __u64 count; __u32 most; char comm[4]; };"


def possible_cpus():
    """Returns the number of CPUs in the kernel's list, ``0-3`` for example, without libbpf."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    ranges = [r.split("-") for r in text.split(",")]
    return sum(int(r[-1]) - int(r[0]) + 1 for r in ranges)


def test_array(make_map):
    m = make_map("array", max_entries=4)
    m[1] = 10
    m.update_batch({2: 20, 3: 30})
    assert len(m) == 4
    assert list(m) == [0, 1, 2, 3]
    assert m == {0: 0, 1: 10, 2: 20, 3: 30}
    assert m == [0, 10, 20, 30]
    assert m != [0, 10, 20]
    m.clear()
    assert m == [0] * 4


def test_array_bounds(make_map):
    m = make_map("array", max_entries=4)
    with pytest.raises(KeyError, match=r"(?s)no key 4 in map 'the_map' \(array\).*indices go from 0 to 3"):
        _ = m[4]
    with pytest.raises(MapError, match=r"indices go from 0 to 3 \(E2BIG\)") as caught:
        m[4] = 1
    assert caught.value.errno == errno.E2BIG
    with pytest.raises(MapError, match="only overwritten") as caught:
        del m[1]
    assert caught.value.errno == errno.EINVAL
    assert 4 not in m


@pytest.mark.parametrize("type", ["array", "percpu_array"])
@pytest.mark.parametrize("key", ["__u32", "int", "enum place"])
def test_the_keys_of_an_array(make_map, type, key):
    m = make_map(type, key=key, max_entries=3, prologue="enum place { FIRST, SECOND };")
    assert len(m.keys()) == 3
    assert m.keys() == {0, 1, 2} == set(m) == dict(m).keys()
    assert m.keys() & {2, 3} == {2}
    assert m.keys() - {0, 1} == {2}
    assert [key in keys for keys in (m.keys(), m) for key in (2, 3)] == [True, False] * 2
    assert list(map(str, m.keys())) == list(map(str, m.items().mapping))
    assert dict(m) == {key: m[key] for key in m} == m
    m.close()
    for read in (m.keys, lambda: iter(m), lambda: dict(m), lambda: m[0]):
        with pytest.raises(ClosedError):
            read()


def test_reading_one_by_one_never_shows_what_was_there_before(make_map):
    m = make_map("array", max_entries=64)
    seen = []
    for key in m:
        m[63] = key
        seen.append((m[key], m[63]))
    assert seen == [(0, key) for key in range(63)] + [(63, 63)]


@pytest.mark.parametrize("type", ["percpu_hash", "percpu_array", "lru_percpu_hash"])
def test_one_value_per_possible_cpu(make_map, type):
    m = make_map(type, value="__u32", max_entries=4)
    m[1] = 7
    assert len(m[1]) == possible_cpus()
    assert m[1] == [7] * possible_cpus()
    m[1] = range_values = list(range(1, possible_cpus() + 1))
    assert m[1] == range_values == tuple(m[1]) or m[1] == range_values
    assert m[1].sum() == sum(range_values)
    assert m[1].max() == max(range_values)
    assert m[1].min() == 1
    assert m.sum()[1] == sum(range_values)
    with pytest.raises(MapValueError, match=f"this kernel has {possible_cpus()} possible CPUs"):
        m[1] = [1] * (possible_cpus() + 1)


def test_percpu_values_of_odd_size_are_not_overrun(make_map):
    m = make_map("percpu_hash", value="struct five", prologue="struct five { char five[5]; };", max_entries=4)
    for key in range(4):
        m[key] = [{"five": f"{key}c{cpu}"} for cpu in range(possible_cpus())]
    for key in range(4):
        assert [v.five for v in m[key]] == [f"{key}c{cpu}" for cpu in range(possible_cpus())]
    assert sorted(m.snapshot()) == list(range(4))


def test_percpu_structs_aggregate_field_by_field(make_map):
    m = make_map("percpu_array", value="struct stats", prologue=STATS, max_entries=1)
    m[0] = [{"count": cpu + 1, "most": 10 - cpu} for cpu in range(possible_cpus())]
    assert m[0].sum()["count"] == sum(range(1, possible_cpus() + 1))
    assert m[0].max()["most"] == 10
    assert "comm" not in m[0].sum()
    m[0] = {"count": 3}
    assert m.sum() == {0: {"count": 3 * possible_cpus(), "most": 0}}


def test_percpu_batches(make_map):
    m = make_map("percpu_hash", max_entries=64)
    m.update_batch({k: k for k in range(50)})
    assert m.sum() == {k: k * possible_cpus() for k in range(50)}
    m.delete_batch(range(49))
    assert list(m) == [49]
