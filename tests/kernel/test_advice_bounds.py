"""Broken programs with the sentence that explains them; each loads after the remedy."""

import re

import pytest

from pytest_bpfmaps import BpfError

HEAD = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
h SEC(".maps");
"""
XDP = """SEC("xdp") int prog(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    %s
    return 2;
}
"""
TOTAL = XDP % (
    "struct iphdr *ip = data + 14; if (data + 34 > end) return 1; __u64 total = bpf_ntohs(ip->tot_len); BOUND"
    " struct tcphdr *tcp = (void *)ip + total; if ((void *)(tcp + 1) > end) return 1; return tcp->window;"
)
MAP = "struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); KEY __type(value, __u64); }"
USES = XDP % "__u32 k = 0; if (bpf_map_lookup_elem(&m, &k)) return 1;"
UPDATE = XDP % "__u32 k = 0; __u64 v = 1; bpf_map_update_elem(&h, &k, &vFLAGS);"

# what is wrong, what helps, the broken program, the text to replace in it, and the text after the remedy
CASES = {
    "the length field of a packet as an offset": (
        "lets the end of the access be beyond 65535|can point outside of the memory",
        "bound (?:the offset|it) ",
        TOTAL, "BOUND", "", "if (total > 1500) return 1;",
    ),
    "a section that is none of maps": (
        "m is used as a map, but it is in the section .map,", r'm SEC\("\.maps"\);',
        MAP.replace("KEY", "__type(key, __u32);") + ' m SEC(".SECTION");\n' + USES, "SECTION", "map", "maps",
    ),
    "a type for __uint": (
        r"__uint\(\) takes a number, and gets a type", r"write __type\(key, …\)",
        MAP + ' m SEC(".maps");\n' + USES, "KEY", "__uint(key, __u32);", "__type(key, __u32);",
    ),
    "an update without flags": (
        r"bpf_map_update_elem\(\) takes 4 arguments", r"const void \*value, __u64 flags\); flags may be 0",
        UPDATE, "FLAGS", "", ", 0",
    ),
}  # fmt: skip


@pytest.mark.bpf_requires("xdp")
@pytest.mark.parametrize("name", CASES)
def test_what_is_said_helps(bpf, name):
    why, fix, code, place, bad, good = CASES[name]
    with pytest.raises(BpfError) as error:
        bpf.load(code=HEAD + code.replace(place, bad))
    said, _, remedy = str(error.value).partition("\n  -> ")
    assert re.search(why, said)
    assert re.search(fix, remedy)
    bpf.load(code=HEAD + code.replace(place, good))


ARENA = """
struct { __uint(type, BPF_MAP_TYPE_ARENA); __uint(map_flags, 1 << 10); __uint(max_entries, 1); }
a SEC(".maps");
#define __arena __attribute__((address_space(1)))
int __arena *kept;
SEC("syscall") int prog(void *ctx)
{
    int __arena *at = kept;
    USE
    if (at)
        *at = 7;
    return 0;
}
"""


@pytest.mark.bpf_requires("syscall", clang="__BPF_FEATURE_ADDR_SPACE_CAST")
@pytest.mark.parametrize("use", ["", 'asm volatile("" :: "r"(&a));'], ids=["pointers", "map"])
def test_an_arena_on_a_kernel_without_arenas(bpf, bpf_kernel, use):
    settings = {} if use else {"maps": {"a": {"autocreate": False}}}
    if bpf_kernel.has("arena"):
        bpf.load(code=HEAD + ARENA.replace("USE", 'asm volatile("" :: "r"(&a));'))
        return
    with pytest.raises(BpfError, match=r"(?s)came with 6\.9.*-> mark the test bpf_requires\(\"arena\"\)"):
        bpf.load(code=HEAD + ARENA.replace("USE", use), **settings)
