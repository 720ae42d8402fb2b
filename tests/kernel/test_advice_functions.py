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


ARGUMENTS = """
struct value { char text[4096]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, struct value); } the_map SEC(".maps");
SEC("tracepoint/raw_syscalls/sys_enter") int prog(struct trace_event_raw_sys_enter *ctx)
{
    struct value *value = bpf_map_lookup_elem(&the_map, &(__u32){0});
    KIND at = 0;
    if (!value)
        return 0;
    for (int i = 0; i < 10; i++) {
        if (BOUND)
            break;
        KIND size = bpf_probe_read_user_str(value->text + at, 128, (void *)(ctx->args[1] + i));
        if (size < 0)
            break;
        at += size;
    }
    return 0;
}
"""
LITERAL = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, char[8]);
         __type(value, __u64); } the_map SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx)
{
    char key[8] = "ab";
    __u64 one = 1;
    bpf_map_update_elem(&the_map, KEY, &one, 0);
    return key[0] ? 2 : 1;
}
"""
MOVED = """
SEC("kprobe/vfs_read") int prog(struct pt_regs *ctx)
{
    struct pt_regs *other = READ;
    return other->ip != 0;
}
"""
FORMAT = """
static const char constant[] = "%d";
SEC("tc") int prog(struct __sk_buff *skb)
{
    char variable[4] = "%d", out[8] = {};
    __u64 number = skb->len;
    return bpf_snprintf(out, sizeof(out), FORMAT, &number, sizeof(number)) + variable[0] + constant[0];
}
"""
PATH = """
SEC("SECTION") int BPF_PROG(prog, struct file *file)
{
    char path[64] = {};
    bpf_d_path(&file->f_path, path, sizeof(path));
    return 0;
}
"""
HELD = {
    "an offset that grows in a loop": (
        ARGUMENTS, ("KIND", "int", "__s64"),
        "the number that was added to the pointer may be negative, or larger than the memory",
        "if (n < 0 || n > SIZE - LENGTH)", "tracepoint/raw_syscalls/sys_enter",
    ),
    "a literal text as a key": (
        LITERAL, ("KEY", '"ab"', "&key"), "the map's key, or value, has 8 bytes, but what is given has 3",
        r'char key\[8\] = "text";', "xdp",
    ),
    "a context that is moved": (
        MOVED, ("READ", "ctx + 1", "ctx"), "moved away from the beginning|reaches outside of its context",
        "ctx->FIELD|check the offset", "kprobe/vfs_read",
    ),
    "a format on the stack": (
        FORMAT, ("FORMAT", "variable", "constant"), "the format has to be a constant of the program",
        "static const char format", "bpf_snprintf",
    ),
    "a path in a function without them": (
        PATH, ("SECTION", "fentry/vfs_read", "fentry/security_file_open"),
        r"allows bpf_d_path\(\) only in programs on a few", r'SEC\("fentry/security_file_open"\)',
        "fentry/security_file_open",
    ),
    "a path in an LSM program": (
        PATH, ("SECTION", "fentry/vfs_read", "lsm/file_open"),
        r"allows bpf_d_path\(\) only in programs on a few", 'SEC', "lsm/file_open",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.bpf_requires(case[-1])) for name, case in HELD.items()]
)
def test_what_is_said_helps(bpf, name):
    code, (place, wrong, right), why, fix, _needed = HELD[name]
    options = ["-mcpu=v2"]  # clang 20 and later use 32-bit registers, with which 6.1 accepts one of these
    with pytest.raises(VerifierError) as caught:
        bpf.load(code=HEAD + code.replace(place, wrong).replace("BOUND", "0"), cflags=options)
    text = str(caught.value)
    assert re.search(why, text)
    assert re.search(fix, text.partition("  -> ")[2])
    mended = code.replace(place, right).replace("BOUND", "at < 0 || at > 4096 - 128")
    if name == "a path in an LSM program" and right not in text:  # the message names what the kernel allows
        with pytest.raises(VerifierError, match="not allowed in probe"):
            bpf.load(code=HEAD + mended, cflags=options)
        return
    bpf.load(code=HEAD + mended, cflags=options)
