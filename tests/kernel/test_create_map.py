"""Tests maps that are made from Python: ``bpf.create_map``."""

import errno
import ipaddress
import mmap
import os
import sys

import pytest

from pytest_bpfmaps import (
    MapError,
    MapOverflowError,
    MapTypeError,
    MapValueError,
    NameLookupError,
    UnsupportedError,
)
from pytest_bpfmaps.maps import map_by_id
from pytest_bpfmaps.maps.create import create_map


def test_typed_by_c_text(bpf):
    m = bpf.create_map("hash", key="u32", value="struct { u32 a; u64 b; }", max_entries=4, name="pairs")
    m[1] = {"a": 2, "b": 3}
    m[2] = (4, 5)
    assert m == {1: {"a": 2, "b": 3}, 2: {"a": 4, "b": 5}}
    assert (str(m.type), m.name, m.key_size, m.value_size, m.max_entries) == ("hash", "pairs", 4, 16, 4)


def test_the_kernel_knows_the_types_too(bpf):
    m = bpf.create_map("hash", key="u64", value="struct { int x; char name[8]; }", max_entries=4)
    m[9] = (-1, "abc")
    with map_by_id(m.id) as seen:  # as bpftool does: it has only the kernel's facts
        assert seen == {9: {"x": -1, "name": "abc"}}
        assert (seen._info.btf_id > 0, repr(seen)) == (True, "<map 'hash' (hash), u64 -> struct>")


@pytest.mark.parametrize(
    ("text", "values", "size"),
    [
        ("u8", [0, 255], 1),
        ("s8", [-128, 127], 1),
        ("__u16", [0, 65535], 2),
        ("s16", [-32768], 2),
        ("u32", [2**32 - 1], 4),
        ("int", [-(2**31)], 4),
        ("s64", [-(2**63)], 8),
        ("u64", [2**64 - 1], 8),
        ("__u64", [2**64 - 1], 8),
        ("unsigned __int128", [2**128 - 1], 16),
        ("bool", [True, False], 1),
        ("char[16]", ["some text"], 16),
        ("u8[4]", [b"\1\2\3\4"], 4),
        ("u16[2][2]", [[[1, 2], [3, 4]]], 8),
        ("struct point { s16 x, y; }", [{"x": -1, "y": 2}], 4),
        ("union { u32 word; u8 byte[4]; }", [{"word": 7}], 4),
        ("struct {\n\tu32 a : 3,\n\tb : 29;\n}", [{"a": 5, "b": 6}], 4),
        ("void *", [2**63], 8),
    ],
)
def test_c_types(bpf, text, values, size):
    m = bpf.create_map("array", value=text, max_entries=1)
    assert m.value_size == size
    for value in values:
        m[0] = value
        back = m[0]
        if isinstance(value, dict):
            assert {name: getattr(back, name) for name in value} == value
        else:
            assert back == value
            assert type(back) is type(value) or isinstance(value, list)


def test_an_enum(bpf):
    m = bpf.create_map("array", value="enum state { IDLE, BUSY = 5 }", max_entries=1)
    m[0] = 5
    assert m[0].name == "BUSY"


def test_sizes_in_bytes_need_no_compiler():
    class NoCompiler:
        def compile(self, request):
            raise AssertionError("asked to compile")

    with create_map(NoCompiler(), "hash", key=3, value=5, max_entries=2) as m:
        m[b"abc"] = b"12345"
        assert m == {b"abc": b"12345"}


def test_one_part_by_size_the_other_by_type(bpf):
    m = bpf.create_map("hash", key=4, value="u32", max_entries=2)
    m[b"\1\0\0\0"] = 7
    assert m == {b"\1\0\0\0": 7}


@pytest.mark.parametrize(
    ("type", "given", "sizes"),
    [
        ("percpu_hash", {"key": "u32", "value": "u64", "max_entries": 2}, (4, 8)),
        ("lru_hash", {"key": "u16", "value": "u64", "max_entries": 64}, (2, 8)),
        ("lru_percpu_hash", {"key": "u16", "value": "u64", "max_entries": 64}, (2, 8)),
        ("percpu_array", {"value": "u32", "max_entries": 2}, (4, 4)),
        ("array", {"key": "u32", "value": 3, "max_entries": 2}, (4, 3)),
        ("queue", {"value": "u64", "max_entries": 2}, (0, 8)),
        ("stack", {"value": "struct { u8 a; }", "max_entries": 2}, (0, 1)),
        ("bloom_filter", {"value": "u32", "max_entries": 9, "extra": 3}, (0, 4)),
        ("lpm_trie", {"key": "struct { u32 bits; u8 ip[4]; }", "value": "u32", "max_entries": 2}, (8, 4)),
        ("ringbuf", {"max_entries": mmap.PAGESIZE}, (0, 0)),
        ("ringbuf", {"max_entries": mmap.PAGESIZE, "value": "struct { u64 x; }"}, (0, 0)),
        ("user_ringbuf", {"max_entries": mmap.PAGESIZE}, (0, 0)),
        ("perf_event_array", {}, (4, 4)),
        ("prog_array", {"max_entries": 3}, (4, 4)),
        ("stack_trace", {"max_entries": 8}, (4, 127 * 8)),
        ("stack_trace", {"max_entries": 8, "value": "u64[10]"}, (4, 80)),
        ("cgroup_array", {"max_entries": 1}, (4, 4)),
        (
            "array_of_maps",
            {"max_entries": 2, "inner": {"type": "array", "value": "u32", "max_entries": 1}},
            (4, 4),
        ),
        ("devmap", {"max_entries": 2}, (4, 4)),
        ("devmap", {"max_entries": 2, "value": "struct { u32 ifindex; int fd; }"}, (4, 8)),
        ("devmap_hash", {"max_entries": 2}, (4, 4)),
        ("cpumap", {"max_entries": 1}, (4, 4)),
        ("xskmap", {"max_entries": 2}, (4, 4)),
        ("sockmap", {"max_entries": 2}, (4, 4)),
        ("sockhash", {"key": "u64", "max_entries": 2}, (8, 4)),
        ("reuseport_sockarray", {"max_entries": 2}, (4, 8)),
        ("cgroup_storage", {"value": "u64"}, (8, 8)),
        ("sk_storage", {"value": "u64"}, (4, 8)),
        ("task_storage", {"value": "struct { u64 a, b; }"}, (4, 16)),
        ("inode_storage", {"value": "u64"}, (4, 8)),
        ("cgrp_storage", {"value": "u64"}, (4, 8)),
        ("arena", {"max_entries": 4}, (0, 0)),
    ],
)
def test_every_type(bpf, bpf_kernel, type, given, sizes):
    try:
        m = bpf.create_map(type, **given)
    except UnsupportedError as e:
        assert not bpf_kernel.has(map_type=type)
        pytest.skip(str(e))
    assert (str(m.type), m.key_size, m.value_size) == (type, *sizes)
    if type == "perf_event_array":
        assert m.max_entries >= os.cpu_count()
    else:
        assert m.max_entries == given.get("max_entries", 0)


def test_an_lpm_trie_without_a_word_on_flags(bpf):
    m = bpf.create_map("lpm_trie", key="struct { u32 prefixlen; u8 data[4]; }", value="u32", max_entries=8)
    m[ipaddress.ip_network("10.0.0.0/8")] = 1
    assert m[ipaddress.ip_address("10.1.2.3")] == 1


def test_a_map_of_maps_with_a_live_model(bpf):
    model = bpf.create_map("hash", key="u32", value="u64", max_entries=4)
    outer = bpf.create_map("hash_of_maps", key="u16", max_entries=2, inner=model)
    model[1] = 2
    outer[7] = model
    assert outer[7] == {1: 2}


def test_a_map_of_maps_with_a_model_by_its_arguments(bpf):
    outer = bpf.create_map(
        "array_of_maps", max_entries=2, inner={"type": "array", "value": "u16", "max_entries": 3}
    )
    inner = bpf.create_map("array", value="u16", max_entries=3)
    inner[2] = 9
    outer[1] = inner
    assert outer[1][2] == 9


def test_it_goes_where_a_program_has_a_map(bpf, load_code):
    m = bpf.create_map("array", value="u64", max_entries=1, name="from_python")
    obj = load_code(
        """
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
                 __type(key, __u32); __type(value, __u64); } counter SEC(".maps");
        SEC("xdp") int count(struct xdp_md *ctx)
        {
            __u32 zero = 0;
            __u64 *value = bpf_map_lookup_elem(&counter, &zero);
            if (value)
                *value += 1;
            return XDP_PASS;
        }
        """,
        reuse={"counter": m},
    )
    obj.programs.count.run(bytes(64), repeat=3)
    assert m == [3]


def test_a_long_name_is_cut_by_the_kernel_alone(bpf):
    m = bpf.create_map("hash", key=1, value=1, max_entries=1, name="a_name_of_many_letters")
    assert m.name == "a_name_of_many_letters"
    assert [found.name for found in bpf.maps_by_name("a_name_of_many_letters")] == ["a_name_of_many_"]


def test_it_is_gone_with_the_fixture(bpf):
    from pytest_bpfmaps.harness import Bpf
    from pytest_bpfmaps.matrix.compilers import compiler_for

    with Bpf(compiler_for(None)) as own:
        inner = {"type": "array", "value": "u16", "max_entries": 3}
        number = own.create_map("array_of_maps", max_entries=2, inner=inner).id
    bpf.wait_until(lambda: number not in [m.id for m in bpf.maps_by_name("array_of_maps")], timeout=60)


HASH = {"type": "hash", "key": "u32", "value": "u32", "max_entries": 1}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"type": "hsh"}, NameLookupError, r"(?s)no map type 'hsh'.*did you mean 'hash'"),
        ({"type": "struct_ops"}, UnsupportedError, r"(?s)struct_ops map: it consists of programs.*\.bpf\.c"),
        ({"key": "u33"}, MapTypeError, r"(?s)map 'hash' \(hash\): its key, 'u33', is not a C type: .*'u33'"),
        ({"value": "struct { u32 a; "}, MapTypeError, r"its value, .* is not a C type: "),
        ({"value": "struct nowhere"}, MapTypeError, r"its value, .* is not a C type: .*incomplete type"),
        ({"key": None}, MapTypeError, r"(?s)its key is missing.*key='u32'"),
        ({"value": None}, MapTypeError, r"its value is missing"),
        ({"max_entries": None}, MapValueError, r"max_entries is missing"),
        ({"max_entries": 0}, MapError, r"(?s)refuses max_entries=0\n.*at least 1"),
        (
            {"flags": 1 << 30},
            MapError,
            r"(?s)refuses map_flags=0x40000000\n.*without 0x40000000 it can be created",
        ),
        ({"name": "no blanks"}, MapValueError, r"letters, digits, '_' and '\.'"),
        ({"type": "queue"}, MapTypeError, r"(?s)\(queue\): it has no key.*leave key='u32' out"),
        (
            {"type": "ringbuf", "key": None},
            MapError,
            r"(?s)refuses max_entries=1\n.*power of 2, and a multiple of \d+",
        ),
        ({"type": "array", "key": "u64"}, MapError, r"(?s)refuses key_size=8\n.*have keys of 4 bytes"),
        ({"type": "lpm_trie"}, MapError, r"(?s)refuses key_size=4\n.*begins with '__u32 prefixlen;'"),
        (
            {"type": "task_storage", "key": None},
            MapValueError,
            r"its size depends on the owners of its values",
        ),
        ({"type": "array_of_maps", "key": None, "value": None}, MapTypeError, r"inner, the model .* missing"),
        ({"inner": {}}, MapTypeError, r"only maps of maps have an inner map"),
        ({"value": 1 << 30}, MapError, r"(?s)E2BIG.*1 elements.*1073741828 bytes\n.*fewer or smaller"),
        pytest.param(
            {"type": "task_storage", "key": None, "value": 8, "max_entries": None},
            MapError,
            r"(?s)need types.*value='u64'",
            marks=pytest.mark.bpf_requires("task_storage"),
        ),
    ],
)
def test_what_is_refused_and_why(bpf, changes, error, message):
    with pytest.raises(error, match=message):
        bpf.create_map(**{**HASH, **changes})


def test_refusals_have_an_errno(bpf):
    with pytest.raises(MapError) as caught:
        bpf.create_map("hash", key=1, value=1, max_entries=0)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("size", [1, 3, 8, 20])
def test_a_size_in_bytes_takes_numbers_of_that_size(bpf, size):
    m = bpf.create_map("hash", key=4, value=size, max_entries=2)
    most = (1 << 8 * size) - 1
    for number in (0, 1, most):
        m[1] = number
        assert m[1] == number.to_bytes(size, sys.byteorder)
    for number in (-1, most + 1):
        with pytest.raises(MapOverflowError, match=f"from 0 to {most}"):
            m[1] = number
