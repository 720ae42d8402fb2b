"""Tests arrays and hashes of maps."""

import errno
import os

import pytest

from pytest_bpfmaps import ClosedError, LoadError, MapError, MapTypeError

BPF_F_INNER_MAP = 1 << 12

pytestmark = pytest.mark.bpf_requires("array_of_maps", "hash_of_maps")

CODE = """
struct point { __s32 x, y; };
struct inner {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, struct point);
} one SEC(".maps"), two SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, __u64[2]);
} wide SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 4);
    __type(key, __u32);
    __array(values, struct inner);
} array SEC(".maps") = { .values = { [1] = &two } };

struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __uint(max_entries, 2);
    __type(key, struct point);
    __array(values, struct inner);
} hash SEC(".maps");
"""


@pytest.fixture
def maps(load_code):
    return load_code(CODE).maps


def test_what_is_put_in_is_read_as_a_typed_map(maps):
    maps.array[0] = maps.one
    maps.array[0][7] = {"x": 1, "y": -1}
    assert maps.one == {7: (1, -1)}
    inner = maps.array[0]
    assert inner[7].y == -1
    assert inner.id == maps.one.id
    assert inner.fd != maps.one.fd
    assert (str(inner.type), inner.max_entries, inner.name) == ("hash", 8, "one")


def test_values_given_in_c_are_there(maps):
    assert maps.array == {1: maps.two}
    assert 1 in maps.array
    assert 0 not in maps.array
    assert len(maps.array) == 1
    assert list(maps.array) == [1]


def test_hash_keys_are_typed(maps):
    maps.hash[(1, 2)] = maps.one
    maps.one[5] = (6, 7)
    assert maps.hash == {(1, 2): maps.one}
    assert maps.hash == {(1, 2): {5: (6, 7)}}
    assert maps.hash != {(1, 2): maps.two}
    assert maps.hash != {(1, 2): {5: (6, 8)}}
    assert maps.hash.snapshot()[(1, 2)] == {5: (6, 7)}
    assert [(k.x, v.id) for k, v in maps.hash.items()] == [(1, maps.one.id)]
    del maps.hash[(1, 2)]
    assert maps.hash == {}


@pytest.mark.parametrize("key", ["text", None, 1.5, (1,), -1, 1 << 40, (1, 1 << 40), b"12345678"])
def test_no_element_has_a_key_that_the_map_can_not_have(maps, key):
    maps.hash[(1, 2)] = maps.one
    for m in (maps.array, maps.hash):
        assert m != {key: maps.two}
        assert not m >= {key: maps.two}


def test_an_empty_slot_is_a_key_error(maps):
    with pytest.raises(KeyError, match=r"(?s)no key 3 in map 'array' \(array_of_maps\).*its keys: 1"):
        maps.array[3]
    with pytest.raises(KeyError):
        del maps.array[3]
    assert maps.array.get(3) is None
    assert maps.array.get(1).id == maps.two.id


def test_clear(maps):
    maps.hash[(1, 2)] = maps.one
    for m in (maps.array, maps.hash):
        m.clear()
        assert m == {}


def test_opened_inner_maps_are_closed(maps):
    before = len(os.listdir("/proc/self/fd"))
    assert maps.array[1].id == maps.two.id  # this reference does not stay
    assert len(os.listdir("/proc/self/fd")) == before
    inner = maps.array[1]
    with maps.array[1] as other:
        assert other.id == inner.id
    with pytest.raises(ClosedError):
        other.fd  # noqa: B018
    assert inner.fd >= 0
    maps.array.close()
    with pytest.raises(ClosedError):
        inner.fd  # noqa: B018


def test_a_map_of_another_kind_is_refused_field_by_field(maps):
    with pytest.raises(
        MapTypeError,
        match=r"(?s)cannot put <map 'wide'.* into map 'array' \(array_of_maps\) at 0: "
        r"its inner maps are of another kind: value_size is 16, not 8 \(EINVAL.*-> give a map with the",
    ) as caught:
        maps.array[0] = maps.wide
    assert caught.value.errno == errno.EINVAL


def test_without_a_declaration_an_inner_map_is_compared_with_one_that_is_there(maps, bpf):
    outer = bpf.map_by_id(maps.array.id)
    with pytest.raises(MapTypeError, match="value_size is 16, not 8"):
        outer[0] = maps.wide
    outer[0] = maps.one
    assert outer == {0: maps.one, 1: maps.two}


def test_a_report_shows_what_was_wanted_where_it_is_there(maps):
    maps.hash[(1, 2)] = maps.one
    wanted = {}
    assert not maps.hash == {(1, 2): wanted, (3, 4): wanted}  # noqa: SIM201
    assert list(maps.hash.compared) == [(1, 2)]
    assert maps.hash.compared[(1, 2)] is wanted
    assert maps.hash == {(1, 2): wanted}
    assert maps.hash.compared is None


def test_inner_maps_without_types_have_those_of_the_declaration(maps, bpf, bpf_kernel):
    inner = bpf.create_map("hash", key=4, value=8, max_entries=8)
    if (5, 15) <= bpf_kernel.version < (6, 2):  # they compare where a timer may be, which only a struct tells
        with pytest.raises(MapError, match="EINVAL"):
            maps.array[0] = inner
        return
    maps.array[0] = inner
    maps.array[0][7] = {"x": 1, "y": -1}
    assert maps.array[0][7].y == -1
    number, point = b"\7\0\0\0", b"\1\0\0\0\xff\xff\xff\xff"
    assert bpf.map_by_id(maps.array.id)[0] == {number: point}, "the kernel has no declaration"


def test_arrays_must_have_the_same_length_unless_they_may_differ(bpf):
    """BPF_F_INNER_MAP came with Linux 5.10."""

    def array(max_entries, flags=0):
        return bpf.create_map("array", value="u64", max_entries=max_entries, flags=flags)

    outer = bpf.create_map("array_of_maps", max_entries=2, inner=array(1))
    with pytest.raises(MapTypeError, match="of another kind: max_entries is 2, not 1 "):
        outer[0] = array(2)
    with pytest.raises(MapTypeError, match="of another kind: flags is 4096, not 0, max_entries is 2, not 1 "):
        outer[0] = array(2, BPF_F_INNER_MAP)
    outer = bpf.create_map("array_of_maps", max_entries=2, inner=array(1, BPF_F_INNER_MAP))
    outer[0] = array(2, BPF_F_INNER_MAP)
    assert len(outer[0]) == 2
    with pytest.raises(MapTypeError, match="of another kind: flags is 0, not 4096 "):
        outer[1] = array(2)
    hashes = [bpf.create_map("hash", key=4, value=4, max_entries=n) for n in (1, 2)]
    outer = bpf.create_map("array_of_maps", max_entries=2, inner=hashes[0])
    outer[0] = hashes[1]
    assert outer[0].max_entries == 2
    with pytest.raises(MapTypeError, match="of another kind: type is array, not hash"):
        outer[1] = array(2)


def test_what_is_no_map_is_refused(maps):
    with open(os.devnull) as file, pytest.raises(MapTypeError, match=r"fd \d+ is /dev/null, not a BPF map"):
        maps.array[0] = file
    with pytest.raises(MapTypeError, match="it is str, not a BPF map"):
        maps.array[0] = "one"
    with pytest.raises(MapTypeError, match="fd 9999 is not open, not a BPF map") as caught:
        maps.array[0] = 9999
    assert caught.value.errno == errno.EBADF


def test_full_and_out_of_range(maps):
    maps.hash[(1, 1)] = maps.one
    maps.hash[(2, 2)] = maps.one
    with pytest.raises(MapError, match="the map is full: max_entries is 2"):
        maps.hash[(3, 3)] = maps.one
    with pytest.raises(MapError, match="its indices go from 0 to 3"):
        maps.array[4] = maps.one


UNDECLARED = """
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 4);
    __uint(key_size, 4);
    __uint(value_size, 4);
} outer SEC(".maps");
"""


def test_the_inner_map_can_be_given_before_the_load(maps, bpf):
    code = (
        '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nchar LICENSE[] SEC("license") = "GPL";'
        + UNDECLARED
    )
    opened = bpf.open(code=code)
    opened.maps.outer.set_inner_map(maps.one)
    with opened.load() as obj:
        obj.maps.outer[2] = maps.two
        maps.two[1] = (2, 3)
        assert obj.maps.outer == {2: {1: (2, 3)}}
        assert obj.maps.outer[2][1].x == 2
        with pytest.raises(MapTypeError, match="value_size is 16, not 8"):
            obj.maps.outer[0] = maps.wide


def test_an_inner_map_can_be_given_to_maps_of_maps_only(maps, bpf):
    opened = bpf.open(code="#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>" + CODE)
    with pytest.raises(LoadError, match=r"cannot take map 'one' \(hash\) as the inner map of map 'wide'"):
        opened.maps.wide.set_inner_map(maps.one)
