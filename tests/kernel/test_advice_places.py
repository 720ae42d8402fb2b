"""Tests refusals of fields, sections and targets: each program loads, or is attached, after the remedy."""

import re

import pytest

from pytest_bpfmaps import AttachError, LoadError
from pytest_bpfmaps.attach import missing_targets

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
PROG = 'SEC("%s") int prog(struct %s *ctx) { return ctx->%s & 1; }'
EMPTY = 'SEC("%s") int prog(void *ctx) { return %d; }'


@pytest.mark.parametrize(
    ("struct", "bad", "good", "field"),
    [
        ("bpf_sock", "cgroup/sock_create", "cgroup/post_bind4", "src_ip4"),
        ("bpf_sock", "cgroup/sock_create", "cgroup/post_bind6", "src_ip6[0]"),
        ("bpf_sock", "cgroup/sock_create", "cgroup/post_bind4", "src_port"),
        ("bpf_sock_addr", "cgroup/connect4", "cgroup/sendmsg4", "msg_src_ip4"),
        ("bpf_sock_addr", "cgroup/connect6", "cgroup/sendmsg6", "msg_src_ip6[0]"),
    ],
)
def test_a_field_that_other_sections_have(bpf, struct, bad, good, field):
    with pytest.raises(LoadError, match=r"may not read the field") as error:
        bpf.load(code=HEAD + PROG % (bad, struct, field))
    assert good in error.value.fix
    bpf.load(code=HEAD + PROG % (good, struct, field))


def test_packets_in_several_buffers(bpf, bpf_kernel):
    if bpf_kernel.version < (5, 18):
        with pytest.raises(
            LoadError, match=r"no XDP programs for packets in several(?s:.*)-> write SEC"
        ) as e:
            bpf.load(code=HEAD + EMPTY % ("xdp.frags", 2))
        assert e.value.fix.startswith('write SEC("xdp")')
        assert not bpf_kernel.has("bpf_xdp_get_buff_len")
        assert 'bpf_requires("bpf_xdp_get_buff_len")' in e.value.fix
    else:
        assert bpf_kernel.has("bpf_xdp_get_buff_len")
        bpf.load(code=HEAD + EMPTY % ("xdp.frags", 2))
    bpf.load(code=HEAD + EMPTY % ("xdp", 2))


INNER = (
    "struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, %s);"
    " __type(value, __u32); };"
)
OUTER = "struct %s { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 1); __type(key, __u32);"
OUTER += " __array(values, struct %s); } %s;"
FLAT = (
    "struct pair { __u32 first, second; };" + INNER % "struct pair" + OUTER % ("", "inner", 'm SEC(".maps")')
)


def test_two_levels_of_maps(bpf):
    nested = INNER % "__u32" + OUTER % ("middle", "inner", "") + OUTER % ("", "middle", 'm SEC(".maps")')
    with pytest.raises(LoadError, match=r"'m' are maps of maps themselves(?s:.*)-> .*both parts"):
        bpf.open(code=HEAD + nested)
    bpf.load(code=HEAD + FLAT + "struct pair unused;" + EMPTY % ("xdp", 2))


def test_a_struct_that_only_an_inner_map_has(bpf):
    """clang writes only its name, although the source defines it."""
    with pytest.raises(LoadError, match=r"clang leaves out the members(?s:.*)-> .*struct NAME unused;"):
        bpf.load(code=HEAD + FLAT + EMPTY % ("xdp", 2))
    bpf.load(code=HEAD + FLAT + "struct pair unused;" + EMPTY % ("xdp", 2))
    sized = FLAT.replace("__type(key, struct pair)", "__uint(key_size, sizeof(struct pair))")
    bpf.load(code=HEAD + sized + EMPTY % ("xdp", 2))


@pytest.mark.bpf_requires("lsm_cgroup/socket_bind")
@pytest.mark.parametrize("target", [{}, {"interface": "lo"}])
def test_a_hook_for_a_cgroup(bpf, bpf_cgroup, target):
    loaded = bpf.load(code=HEAD + EMPTY % ("lsm_cgroup/socket_bind", 1))
    with pytest.raises(AttachError) as error:
        loaded.programs.prog.attach(**target) if target else loaded.attach()
    assert "attach(cgroup=bpf_cgroup)" in error.value.fix
    loaded.programs.prog.attach(cgroup=bpf_cgroup).close()


@pytest.mark.bpf_requires("kprobe")
def test_a_name_of_another_kernels_compiler(bpf):
    with pytest.raises(AttachError, match=r"no 'vfs_read\.isra\.0' of 'vfs_read'\n(?s:.*)-> use 'vfs_read'"):
        bpf.load(code=HEAD + EMPTY % ("kprobe/vfs_read.isra.0", 0)).attach()
    bpf.load(code=HEAD + EMPTY % ("kprobe/vfs_read", 0)).attach()


@pytest.mark.bpf_requires("kprobe")
def test_a_place_between_instructions(bpf, monkeypatch):
    """A list of all functions takes an emulated guest a second, and is not needed."""
    monkeypatch.setattr(missing_targets, "functions", lambda: pytest.fail("all functions were read"))
    with pytest.raises(AttachError, match=r"vfs_read\+0x1 is not the start of an instruction"):
        bpf.load(code=HEAD + EMPTY % ("kprobe/vfs_read+1", 0)).attach()
    bpf.load(code=HEAD + EMPTY % ("kprobe/vfs_read", 0)).attach()


@pytest.mark.bpf_requires("iter/task")
def test_each_iterator_that_is_named(bpf):
    with pytest.raises(LoadError, match="this kernel has no iterator 'taskk'") as error:
        bpf.load(code=HEAD + EMPTY % ("iter/taskk", 0))
    named = re.findall(r"'(\w+)'", error.value.fix)
    assert named[0] == "task"
    for name in named:
        bpf.load(code=HEAD + EMPTY % (f"iter/{name}", 0))


@pytest.mark.bpf_requires("perf_event")
def test_a_hash_map_without_elements_in_an_interrupt(bpf, bpf_kernel):
    code = (
        "struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); FLAGS __type(key, __u32);"
        ' __type(value, __u64); } m SEC(".maps"); SEC("perf_event") int prog(void *ctx)'
        " { __u32 key = 0; return bpf_map_lookup_elem(&m, &key) != 0; }"
    )
    said = ""
    try:
        bpf.load(code=HEAD + code.replace("FLAGS", "__uint(map_flags, BPF_F_NO_PREALLOC);"))
    except LoadError as error:
        said = str(error)
    assert not said or "-> leave BPF_F_NO_PREALLOC out of the map's flags" in said
    assert not said or bpf_kernel.version < (6, 1)
    bpf.load(code=HEAD + code.replace("FLAGS", ""))
