"""Tests advice about the functions that a program has or calls: each program loads after the remedy."""

import re
import subprocess
from pathlib import Path

import pytest

from pytest_bpfmaps import LoadError, VerifierError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
"""
SIX = """
static __attribute__((noinline)) int six(int a, int b, int c, int d, int e, int unused)
{
    volatile int sum = a + b;
    return sum + c + d + e;
}
SEC("xdp") int prog(struct xdp_md *ctx) { return six(ctx->rx_queue_index, 2, 3, 4, 5, 6) & 3; }
"""
NOINLINE = "static __attribute__((noinline))"


def test_a_static_function_with_six_parameters(bpf):
    """clang leaves a parameter out that is not used, but its type keeps it. Linux 6.12 and older take it."""
    said = "the function 'six' has more than 5 parameters"
    try:
        bpf.load(code=HEAD + SIX)
    except LoadError as e:
        said = str(e)
    assert "the function 'six' has more than 5 parameters" in said
    bpf.load(code=HEAD + SIX.replace(NOINLINE, "static __always_inline"))
    bpf.load(code=HEAD + SIX.replace(", int unused", "").replace(", 6)", ")"))


KPTR = """
extern void bpf_task_release(struct task_struct *p) __ksym;
struct value { __u64 number; FIELD };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, struct value); } the_map SEC(".maps");
SEC("tc") int prog(struct __sk_buff *ctx)
{
    struct value *value = bpf_map_lookup_elem(&the_map, &(__u32){0});
    struct task_struct *old = value ? bpf_kptr_xchg(&value->NAME, NULL) : NULL;
    if (old)
        bpf_task_release(old);
    return 0;
}
"""


@pytest.mark.bpf_requires("bpf_kptr_xchg", kfunc="bpf_task_release")
@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("struct task_struct *task;", "task"),
        ("struct task_struct __kptr_untrusted *task;", "task"),
        ("struct task_struct __kptr *task;", "number"),
    ],
)
def test_a_pointer_in_a_map_that_is_not_marked(bpf, field, name):
    with pytest.raises(VerifierError) as caught:
        bpf.load(code=HEAD + UNTRUSTED + KPTR.replace("FIELD", field).replace("NAME", name))
    assert "no pointer at that address whose object the map keeps (kptr)" in str(caught.value)
    assert "-> mark the field in the struct of the map's value" in str(caught.value)
    remedy = KPTR.replace("FIELD", "struct task_struct __kptr *task;").replace("NAME", "task")
    bpf.load(code=HEAD + remedy)


UNTRUSTED = """
#undef __kptr_untrusted
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
"""

# its first parameter is the context, and the kernel's types have the others
CALL = """
extern void bpf_ct_release(struct nf_conn *) %s;
SEC("xdp") int prog(struct xdp_md *ctx)
{
    if (ctx->rx_queue_index == 0x7fffffff)
        bpf_ct_release((void *)(long)ctx->ingress_ifindex);
    return 2;
}
"""


@pytest.mark.bpf_requires("kprobe/vfs_read")
@pytest.mark.parametrize("attribute", ["__ksym", "__ksym __weak"])
def test_a_kernel_function_of_a_module_that_is_not_loaded(bpf, attribute):
    subprocess.run(["modprobe", "-r", "nf_conntrack"], check=False)
    code = HEAD + CALL % attribute
    with pytest.raises(LoadError) as caught:
        bpf.load(code=code)
    told = re.search(r"-> load it before: (modprobe nf_conntrack)", str(caught.value))
    before = str(caught.value)
    subprocess.run(["modprobe", "nf_conntrack"], check=True)
    is_there = " bpf_ct_release\t" in Path("/proc/kallsyms").read_text()
    with pytest.raises(LoadError) as caught:
        bpf.load(code=code)
    assert bool(told) is is_there
    assert "not loaded" not in str(caught.value)
    assert ("'bpf_ct_release' is a function of the module nf_conntrack, which is not" in before) is is_there
    subprocess.run(["modprobe", "-r", "nf_conntrack"], check=False)
