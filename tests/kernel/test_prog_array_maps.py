"""Tests program arrays."""

import errno
import os

import pytest

from pytest_bpfmaps import MapError, MapTypeError

pytestmark = pytest.mark.bpf_requires("prog_array", "xdp", "socket_filter")

CODE = """
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u32);
} jumps SEC(".maps");

SEC("xdp") int start(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 2); return 0; }
SEC("xdp") int one(struct xdp_md *ctx) { return 1; }
SEC("xdp") int two(struct xdp_md *ctx) { return 2; }
SEC("socket") int other(struct __sk_buff *ctx) { return 3; }
"""
PACKET = bytes(64)


@pytest.fixture
def obj(load_code):
    return load_code(CODE)


def test_tail_calls_go_where_the_array_says(obj):
    jumps, programs = obj.maps.jumps, obj.programs
    assert programs.start.run(PACKET).retval == 0
    jumps[2] = programs.one
    assert programs.start.run(PACKET).retval == 1
    jumps[2] = programs.two
    assert programs.start.run(PACKET).retval == 2
    del jumps[2]
    assert programs.start.run(PACKET).retval == 0


def test_pop_and_update(obj):
    jumps, programs = obj.maps.jumps, obj.programs
    jumps.update({1: programs.one, 2: programs.two})
    assert jumps.pop(1) == programs.one
    assert jumps.pop(1, None) is None
    assert jumps == {2: programs.two}


def test_reads_as_ids_that_equal_programs(obj):
    jumps, programs = obj.maps.jumps, obj.programs
    jumps[0] = programs.one
    jumps[3] = programs.two.fd
    assert jumps[0] == programs.one
    assert jumps[0] == programs.one.id
    assert jumps[0] != programs.two
    assert jumps[0] != "one"
    assert jumps[0].name == "one"
    assert repr(jumps[0]) == f"<program id {programs.one.id}>"
    assert jumps == {0: programs.one, 3: programs.two}
    assert jumps != {0: programs.two, 3: programs.two}
    assert list(jumps) == [0, 3]
    assert len(jumps) == 2
    assert 1 not in jumps
    jumps[1] = jumps[0]
    assert jumps[1] == programs.one
    jumps.clear()
    assert jumps == {}


def test_an_empty_slot_is_a_key_error(obj):
    obj.maps.jumps[1] = obj.programs.one
    with pytest.raises(KeyError, match=r"(?s)no key 0 in map 'jumps' \(prog_array\).*its keys: 1"):
        obj.maps.jumps[0]
    with pytest.raises(KeyError):
        del obj.maps.jumps[0]


def test_a_program_of_another_type_is_refused(obj):
    with pytest.raises(
        MapError, match=r"(?s)all programs of an array have one type.*give a program of"
    ) as caught:
        obj.maps.jumps[0] = obj.programs.other
    assert caught.value.errno == errno.EINVAL


def test_what_is_no_program_is_refused(obj):
    with pytest.raises(MapTypeError, match=r"fd \d+ is bpf-map, not a BPF program"):
        obj.maps.jumps[0] = obj.maps.jumps
    with open(os.devnull) as file, pytest.raises(MapTypeError, match="is /dev/null, not a BPF program"):
        obj.maps.jumps[0] = file
    with pytest.raises(MapTypeError, match="it is str, not a BPF program"):
        obj.maps.jumps[0] = "one"
    with pytest.raises(MapError, match="its indices go from 0 to 3"):
        obj.maps.jumps[4] = obj.programs.one


def test_a_failing_comparison_shows_what_differs(obj):
    jumps, programs = obj.maps.jumps, obj.programs
    jumps[0], jumps[1] = programs.one, programs.two
    assert jumps >= {0: programs.one}
    with pytest.raises(AssertionError) as caught:
        assert jumps == {0: programs.one, 1: programs.one}
    text = str(caught.value)
    assert "map 'jumps' (prog_array)" in text
    assert "1 of 2 keys differ" in text
    assert f"<program id {programs.two.id}>" in text
