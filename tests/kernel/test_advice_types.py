"""Tests what clang says about types: the message names the cause, and the source loads after its remedy."""

import re

import pytest

from pytest_bpfmaps import CompileError

LICENSE = 'char LICENSE[] SEC("license") = "GPL";\n'
UAPI = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n" + LICENSE
KERNEL = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n' + LICENSE
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { %s }'
MAP = (
    "struct { __uint(type, BPF_MAP_TYPE_%s); __uint(max_entries, 4); __type(key, __u32);"
    ' __type(value, __u64); } h SEC(".maps");'
)
HASH = UAPI + MAP % "HASH"
LOOKUP = XDP % "__u32 k = 0; return bpf_map_lookup_elem(%s) ? 2 : 1;"
HEADER = XDP % (
    "struct iphdr *ip = (void *)(long)ctx->data; if ((void *)(ip + 1) > (void *)(long)ctx->data_end)"
    " return 1; return ip->protocol;"
)
TASK = XDP % "struct task_struct *t = (void *)bpf_get_current_task_btf(); return t->pid;"
FAMILY = 'SEC("cgroup/connect4") int prog(struct bpf_sock_addr *ctx) { return ctx->family == AF_INET; }'
SUM = "static __noinline int sum(%s) { %s }"

# the mistake; why and what to do, as the message says; the source after that was done
CASES = {
    "a section without quotes": (
        UAPI + "SEC(xdp) int prog(struct xdp_md *ctx) { return 2; }", r"SEC\(\) takes a text",
        r'SEC\("xdp"\)', UAPI + XDP % "return 2;",
    ),
    "a map without &": (
        HASH + LOOKUP % "h, &k", "takes the address of the map", "write &map", HASH + LOOKUP % "&h, &k",
    ),
    "a key without &": (
        HASH + LOOKUP % "&h, k", r"bpf_map_lookup_elem\(\) takes the addresses", "&key",
        HASH + LOOKUP % "&h, &k",
    ),
    "a map type of another name": (
        UAPI + MAP % "HASHMAP" + LOOKUP % "&h, &k", "no BPF_MAP_TYPE_HASHMAP", r"BPF_MAP_TYPE_HASH\?",
        HASH + LOOKUP % "&h, &k",
    ),
    "the kernel's struct in place of the context": (
        UAPI + 'SEC("xdp") int prog(struct xdp_buff *ctx) { return ctx->data ? 2 : 1; }',
        "a program gets a struct xdp_md", r"struct xdp_md \*ctx", UAPI + XDP % "return ctx->data ? 2 : 1;",
    ),
    "a header's struct": (
        UAPI + HEADER, "struct iphdr is declared, but not defined", "#include <linux/ip.h>",
        "#include <linux/ip.h>\n" + UAPI + HEADER,
    ),
    "a header's constant": (
        UAPI + XDP % "return ctx->data == IPPROTO_TCP;", "IPPROTO_TCP is in another header",
        "#include <linux/in.h>",
        "#include <linux/in.h>\n" + UAPI + XDP % "return ctx->data == IPPROTO_TCP;",
    ),
    "the family of an address": (
        KERNEL + FAMILY, "AF_INET is a macro", "#define AF_INET 2", "#define AF_INET 2\n" + KERNEL + FAMILY,
    ),
    "a variable number of arguments": (
        UAPI + SUM % ("int n, ...", "__builtin_va_list a; __builtin_va_start(a, n); "
                      "int r = __builtin_va_arg(a, int); __builtin_va_end(a); return r;")
        + XDP % "return sum(1, 2);",
        "a fixed number of parameters", "a pointer to an array",
        UAPI + SUM % ("int *all, int n", "int r = 0; for (int i = 0; i < n && i < 8; i++) r += all[i];"
                      " return r;")
        + XDP % "int all[1] = {2}; return sum(all, 1);",
    ),
    "a variable of a thread": (
        UAPI + "static __thread int n;" + XDP % "return n++;", "no variables of a thread", "PERCPU_ARRAY",
        UAPI + MAP % "PERCPU_ARRAY" + XDP % "__u32 k = 0; __u64 *n = bpf_map_lookup_elem(&h, &k);"
        " return n ? (*n)++ : 1;",
    ),
    "assembly of another processor": (
        UAPI + XDP % r'asm volatile("mov %eax, %ebx"); return 2;', "no assembly of BPF", r"%0 \+= 1",
        UAPI + XDP % 'int n = 1; asm volatile("%0 += 1" : "+r"(n)); return n;',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_helps(bpf, name):
    bad, why, fix, good = CASES[name]
    with pytest.raises(CompileError, match=why) as error:
        bpf.compile(code=bad)
    assert re.search(fix, str(error.value).rpartition("\n  -> ")[2])
    bpf.load(code=good)


@pytest.mark.bpf_requires("bpf_get_current_task_btf", "tp_btf")
def test_a_struct_of_the_kernel(bpf):
    code = TASK.replace('"xdp"', '"tp_btf/sched_switch"').replace("struct xdp_md *ctx", "void *ctx")
    with pytest.raises(CompileError, match="struct task_struct is declared, but not defined") as error:
        bpf.compile(code=UAPI + code)
    assert '-> include "vmlinux.h" in place of <linux/bpf.h>' in str(error.value)
    bpf.load(code=KERNEL + code.replace("return t->pid", "return t->pid * 0"))
