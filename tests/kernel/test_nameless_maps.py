"""Tests maps that have no name in the kernel, as those that libbpf creates with a BPF token."""

import os

import pytest

from pytest_bpfmaps.libbpf import ffi, lib, opts
from pytest_bpfmaps.maps.info import map_info

CODE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16);
    __type(key, __u32);
    __type(value, struct { __u64 packets; __u64 bytes; });
} counts SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, __u64);
} first SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, __u64);
} second SEC(".maps");
long seen;
SEC("xdp") int frames(struct xdp_md *ctx)
{
    __u32 key = 0;
    seen++;
    return bpf_map_lookup_elem(&counts, &key) || bpf_map_lookup_elem(&first, &key) ||
           bpf_map_lookup_elem(&second, &key);
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def copy(bpf):
    """Creates a map with the attributes and types of another, but without a name."""
    made = []

    def create(the_map):
        info = map_info(the_map.fd)
        btf = lib.bpf_btf_get_fd_by_id(info.btf_id)
        types = {"btf_key_type_id": info.btf_key_type_id, "btf_value_type_id": info.btf_value_type_id}
        settings = opts("bpf_map_create_opts", btf_fd=btf, map_flags=info.flags, **types)
        sizes = info.key_size, info.value_size, info.max_entries
        fd = lib.bpf_map_create(int(info.type), ffi.NULL, *sizes, settings)
        os.close(btf)
        assert fd >= 0
        made.append(fd)
        assert map_info(fd).name == ""
        return bpf.map_by_id(map_info(fd).id)

    yield create
    for fd in made:
        os.close(fd)


def test_its_shape_tells_the_name(bpf, copy):
    obj = bpf.load(code=CODE)
    found = copy(obj.maps.counts)
    assert found.name == "counts"
    found[3] = {"packets": 1, "bytes": 60}
    assert found == {3: {"packets": 1, "bytes": 60}}


def test_a_data_section_tells_its_name(bpf, copy):
    assert copy(bpf.load(code=CODE).maps[".bss"]).name == ".bss"


def test_two_of_one_shape_keep_no_name(bpf, copy):
    assert copy(bpf.load(code=CODE).maps.first).name == ""
