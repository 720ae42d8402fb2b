"""Tests settings before the load, against the kernel: attributes of maps and programs, custom BTF."""

import os
import subprocess
import sys

import pytest

from pytest_bpfmaps import LoadError, MapValueError, NameLookupError, UnsupportedError
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf import version as libbpf_version

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
BPF_F_NO_PREALLOC, BPF_F_NUMA_NODE = 1, 4
CODE = """
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, __u64);
} counts SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_STACK_TRACE);
    __type(key, __u32);
} stacks SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
    __uint(max_entries, 8);
    __type(value, __u32);
} seen SEC(".maps");
SEC("xdp") int p(struct xdp_md *ctx) { return XDP_PASS; }
SEC("my_own_section") int q(void *ctx) { return 1; }
"""
STACKS = {"max_entries": 16, "value_size": 127 * 8}  # the sizes of bcc's profile and offcputime


def told_by_kernel(map_):
    """Returns the kernel's facts about a map, without this package."""
    info = ffi.new("struct bpf_map_info *")
    size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_map_info"))
    assert lib.bpf_obj_get_info_by_fd(map_.fd, info, size) == 0
    return info


@pytest.fixture
def load(load_code):
    def load(maps=None, **options):
        options.setdefault("programs", ["p"])
        return load_code(
            CODE, maps={"stacks": STACKS, "seen": {"autocreate": False}, **(maps or {})}, **options
        )

    return load


def test_sizes_type_and_flags(load):
    obj = load({"counts": {"type": "lru_hash", "key_size": 16, "value_size": 24, "max_entries": 32}})
    info = told_by_kernel(obj.maps.counts)
    assert (info.type, info.key_size, info.value_size, info.max_entries) == (9, 16, 24, 32)
    obj.maps.counts[b"k" * 16] = b"v" * 24
    assert obj.maps.counts == {b"k" * 16: b"v" * 24}
    info = told_by_kernel(obj.maps.stacks)
    assert (info.value_size, info.max_entries) == (127 * 8, 16)
    assert "seen" not in obj.maps
    obj = load({"counts": {"flags": BPF_F_NO_PREALLOC}})
    assert told_by_kernel(obj.maps.counts).map_flags == BPF_F_NO_PREALLOC


def test_types_by_number_and_name(load):
    for wanted in ("percpu_hash", "BPF_MAP_TYPE_PERCPU_HASH", 5):
        assert told_by_kernel(load({"counts": {"type": wanted}}).maps.counts).type == 5


def test_the_value_keeps_its_type_where_the_size_fits(load):
    obj = load({"counts": {"type": "percpu_hash"}})
    obj.maps.counts[1] = 7
    assert set(obj.maps.counts[1]) == {7}


@pytest.mark.bpf_requires(map_type="bloom_filter")
def test_map_extra(load):
    obj = load({"seen": {"map_extra": 9}})
    assert told_by_kernel(obj.maps.seen).map_extra == 9


@pytest.mark.bpf_requires("bloom_filter")
def test_map_extra_that_the_kernel_refuses(load):
    for name, number, rule in (("seen", 99, "number of hash functions"), ("counts", 5, "leave it out")):
        with pytest.raises(
            LoadError, match=f"map '{name}': the kernel refuses map_extra={number}(?s:.*)-> .*{rule}"
        ):
            load({name: {"map_extra": number}})


def test_numa_node(load):
    """The kernel does not report the node, but refuses one that does not exist."""
    load({"counts": {"flags": BPF_F_NUMA_NODE, "numa_node": 0}})
    with pytest.raises(LoadError, match="counts"):
        load({"counts": {"flags": BPF_F_NUMA_NODE, "numa_node": 1000}})


def test_ifindex(load, bpf_netns):
    """No interface here offloads maps. The kernel's error shows that it got the interface."""
    with pytest.raises(LoadError, match="counts") as caught:
        load({"counts": {"ifindex": 1}})
    assert caught.value.errno in (22, 95, 19)


def test_before_load_by_attribute(bpf, load_code):
    opened = bpf.open(code=HEAD + CODE)
    spec = opened.maps.counts
    assert (str(spec.type), spec.key_size, spec.value_size, spec.flags, spec.map_extra) == (
        "hash",
        4,
        8,
        0,
        0,
    )
    assert (spec.numa_node, spec.ifindex, spec.autocreate) == (0, 0, True)
    spec.type, spec.flags, spec.max_entries = "hash", BPF_F_NO_PREALLOC, 5
    opened.maps.stacks.configure(STACKS)
    opened.maps.seen.autocreate = False
    opened.programs.q.configure({"type": "socket_filter"})
    with opened.load() as loaded:
        info = told_by_kernel(loaded.maps.counts)
        assert (info.map_flags, info.max_entries) == (BPF_F_NO_PREALLOC, 5)


def test_a_programs_type_and_attach_type(load):
    settings = {"p": {"type": "xdp", "expected_attach_type": "xdp_devmap"}, "q": {"type": "socket_filter"}}
    obj = load(programs=settings)
    assert [(p.name, str(p.type)) for p in obj.programs] == [("p", "xdp"), ("q", "socket_filter")]
    assert obj.programs.q.run(bytes(64)).retval == 1


def test_attach_types_have_the_kernels_numbers(bpf, load_code):
    program = bpf.open(code=HEAD + CODE).programs.p
    for number, names in (
        (37, ("xdp", "BPF_XDP")),
        (33, ("xdp_devmap", "BPF_XDP_DEVMAP")),
        (10, ("cgroup_inet4_connect",)),
    ):
        for name in names:
            program.expected_attach_type = name
            assert lib.bpf_program__expected_attach_type(program.handle) == number
    assert program.expected_attach_type == "cgroup_inet4_connect"


@pytest.mark.bpf_requires(program_type="syscall")
def test_a_programs_flags(bpf, load_code):
    """The kernel requires syscall programs to be sleepable, and refuses them without the flag."""
    code = 'SEC("my_own") int s(void *ctx) { return 0; }'
    sleepable = 1 << 4
    load_code(code, programs={"s": {"type": "syscall", "flags": sleepable}})
    with pytest.raises(LoadError):
        load_code(code, programs={"s": {"type": "syscall"}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": {"count": {}}}, r"(?s)no map 'count'.*counts"),
        ({"maps": {"counts": {"keysize": 4}}}, r"(?s)no setting 'keysize' of map 'counts'.*key_size"),
        ({"maps": {"counts": {"type": "lru_hush"}}}, r"(?s)no map type 'lru_hush'.*lru_hash"),
        ({"programs": {"p": {"sort": 4}}}, r"(?s)no setting 'sort' of program 'p'"),
        ({"programs": {"p": {"type": "xdb"}}}, r"(?s)no program type 'xdb'.*xdp"),
        (
            {"programs": {"p": {"expected_attach_type": "xdp_devmp"}}},
            r"(?s)no attach type 'xdp_devmp'.*xdp_devmap",
        ),
    ],
)
def test_misspelt_settings(load_code, options, message):
    with pytest.raises(NameLookupError, match=message):
        load_code(CODE, **options)


def test_a_number_that_does_not_fit(load):
    with pytest.raises(MapValueError, match="cannot set key_size=-1 of map 'counts'"):
        load({"counts": {"key_size": -1}})


def test_a_data_section_grows_where_libbpf_lets_it(load_code):
    code = 'int seen[4]; SEC("xdp") int p(void *ctx) { return seen[1]; }'
    if libbpf_version() < (1, 3):
        with pytest.raises(UnsupportedError, match=r"libbpf 1\.\d+ can't resize a data section"):
            load_code(code, maps={".bss": {"value_size": 4096}})
    else:
        assert (
            told_by_kernel(load_code(code, maps={".bss": {"value_size": 4096}}).maps[".bss"]).value_size
            == 4096
        )


CORE = """
struct task_struct { int pid; } __attribute__((preserve_access_index));
int offset;
SEC("xdp") int p(struct xdp_md *ctx)
{
    offset = __builtin_preserve_field_info(((struct task_struct *)0)->pid, 0);
    return XDP_PASS;
}
"""


def offset_with(obj):
    obj.programs.p.run(bytes(64))
    return obj.globals.offset


@pytest.fixture
def other_kernel(bpf, tmp_path):
    """Returns BTF of an invented kernel, whose task_struct has the pid at 24."""
    return bpf.compile(
        code="struct task_struct { char before[24]; int pid; } a; int x(void) { return a.pid; }"
    )


def test_custom_btf(load_code, other_kernel, tmp_path):
    assert offset_with(load_code(CORE, btf=other_kernel)) == 24
    assert offset_with(load_code(CORE)) != 24


def test_custom_btf_that_is_not_there(load_code):
    with pytest.raises(
        LoadError, match=r"(?s)cannot read the kernel's types from .*none\.btf: there is no such file"
    ):
        load_code(CORE, btf="none.btf")


@pytest.mark.parametrize("code", [CORE, 'SEC("xdp") int p(void *ctx) { return 2; }'], ids=["CO-RE", "none"])
def test_custom_btf_that_is_another_file(load_code, tmp_path, code):
    (tmp_path / "other.btf").write_text("no types")
    with pytest.raises(
        LoadError, match=r"cannot read the kernel's types from .*: it is neither BTF nor an ELF"
    ):
        load_code(code, btf=tmp_path / "other.btf")


HIDDEN = """
import ctypes, os, sys
from pathlib import Path
from pytest_bpfmaps.objects import OpenedObject

libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
assert libc.mount(b"none", b"/sys/kernel/btf", b"tmpfs", 0, None) == 0
assert not os.path.exists("/sys/kernel/btf/vmlinux")
with OpenedObject(Path(sys.argv[1])) as opened, opened.load() as loaded:
    loaded.programs.p.run(bytes(64))
    print(loaded.globals.offset)
"""


def test_the_catalogue_has_the_types_of_a_kernel_that_shows_none(bpf, other_kernel):
    """Runs where /sys/kernel/btf is empty, as on a kernel without CONFIG_DEBUG_INFO_BTF."""
    command = [sys.executable, "-c", HIDDEN, str(bpf.compile(code=HEAD + CORE))]
    environment = {**os.environ, "BPFMAPS_KERNEL_BTF": str(other_kernel)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "24\n"
    environment["BPFMAPS_KERNEL_BTF"] = ""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "LoadError" in done.stderr


LEAVES_OUT = """
SEC("xdp") int a(struct xdp_md *ctx) { return 1; }
SEC("xdp") int b(struct xdp_md *ctx) { return 2; }
SEC("?xdp") int c(struct xdp_md *ctx) { return 0; }
"""


@pytest.mark.parametrize(
    ("programs", "loaded"),
    [
        ({"a": {"autoload": False}}, ["b"]),
        ({"a": {"autoload": False}, "c": {}}, ["c"]),
        ({"a": {"autoload": False}, "b": {"autoload": False}}, []),
        ({"c": {"autoload": True}}, ["c"]),
        ({}, []),
    ],
)
def test_programs_that_are_left_out(load_code, programs, loaded):
    assert [each.name for each in load_code(LEAVES_OUT, programs=programs).programs] == loaded
