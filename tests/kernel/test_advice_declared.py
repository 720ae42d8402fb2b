"""Tests wrong declarations of maps and of the kernel's names: each object loads after the remedy."""

import pytest

from pytest_bpfmaps import BpfError
from pytest_bpfmaps.kernel.attach_names import symbols

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
"""
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { %s }'
MAP = (
    'struct { __uint(type, BPF_MAP_TYPE_%s); %s } m SEC(".maps");'
    + XDP % "return bpf_map_lookup_elem(&m, &(int){0}) != 0;"
)
HASH = MAP % ("HASH", "%s __type(key, __u32); __type(value, __u64);")
ENTRIES = "__uint(max_entries, 4);"
TASK = "extern const void %s __ksym;" + XDP % "return (long)&%s & 1;"
RELEASE = """
extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
extern void %s(struct task_struct *p) __ksym;
SEC("tp_btf/task_newtask") int BPF_PROG(prog, struct task_struct *t)
{
    struct task_struct *own = bpf_task_acquire(t);
    if (own)
        %s(own);
    return 0;
}
"""
OPS = """
SEC("struct_ops/ssthresh") __u32 BPF_PROG(ssthresh, struct sock *sk) { return 2; }
SEC(".struct_ops") struct %s x = { .ssthresh = (void *)ssthresh, .name = "bpf_none" };
"""

DECLARED = {
    "a misspelt field": (
        HASH % "__uint(max_entry, 4);", "a field 'max_entry'", "did you mean 'max_entries'", HASH % ENTRIES,
    ),
    "a way of pinning": (
        HASH % (ENTRIES + "__uint(pinning, 7);"), "pinning that libbpf does not know", "LIBBPF_PIN_BY_NAME",
        HASH % ENTRIES,
    ),
    "a number among the maps": (
        HASH % ENTRIES + 'int number SEC(".maps");', "but is not a map", r'remove SEC\("\.maps"\) from',
        HASH % ENTRIES + "int number;",
    ),
    "two flags that exclude each other": (
        HASH % (ENTRIES + "__uint(map_flags, BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG);"),
        "refuses map_flags=0x180", "use one of BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG",
        HASH % (ENTRIES + "__uint(map_flags, BPF_F_RDONLY_PROG);"),
    ),
    "a node that is not there": (
        HASH % (ENTRIES + "__uint(map_flags, BPF_F_NUMA_NODE); __uint(numa_node, 77);"),
        "refuses map_flags=0x4", "no node with the number in numa_node", HASH % ENTRIES,
    ),
    "more CPUs than kernels are built for": (
        MAP % ("CPUMAP", "__uint(max_entries, 1000000); __type(key, __u32); __type(value, __u32);"),
        "1000000 CPUs", "64",
        MAP % ("CPUMAP", "__uint(max_entries, 64); __type(key, __u32); __type(value, __u32);"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_said_of_a_map_helps(bpf, name):
    bad, why, fix, good = DECLARED[name]
    with pytest.raises(BpfError) as error:
        bpf.load(code=HEAD + bad)
    assert error.match(f"(?s){why}.*-> .*{fix}")
    bpf.open(code=HEAD + good) if "CPUMAP" in good else bpf.load(code=HEAD + good)


def test_a_misspelt_variable_of_the_kernel(bpf):
    if "init_task" not in symbols():
        pytest.skip("this kernel lists no variables (CONFIG_KALLSYMS_ALL)")
    with pytest.raises(BpfError, match=r"no symbol init_tazk.*(?s:.*)-> did you mean 'init_task'"):
        bpf.load(code=HEAD + TASK % ("init_tazk", "init_tazk"))
    bpf.load(code=HEAD + TASK % ("init_task", "init_task"))


@pytest.mark.bpf_requires("bpf_task_release", "tp_btf/task_newtask")
def test_a_misspelt_function_of_the_kernel(bpf):
    name = "bpf_task_releaze"
    with pytest.raises(
        BpfError, match=rf"no kernel function {name}.*(?s:.*)-> did you mean .*'bpf_task_release'"
    ):
        bpf.load(code=HEAD + RELEASE % (name, name))
    bpf.load(code=HEAD + RELEASE % ("bpf_task_release", "bpf_task_release"))


@pytest.mark.bpf_requires("bpf_task_release", "tp_btf/task_newtask")
def test_what_was_not_acquired_is_not_released(bpf):
    code = HEAD + RELEASE % ("bpf_task_release", "bpf_task_release")
    with pytest.raises(
        BpfError, match=r"releases a pointer that it has not acquired(?s:.*)-> release only what an …_acquire"
    ):
        bpf.load(code=code.replace("bpf_task_acquire(t)", "t"))


@pytest.mark.bpf_requires("struct_ops")
def test_a_struct_of_functions_that_the_kernel_does_not_have(bpf):
    fields = "{ __u32 (*ssthresh)(struct sock *sk); char name[16]; };"
    with pytest.raises(
        BpfError, match=r"no struct tcp_congestion_op whose(?s:.*)-> did you mean 'tcp_congestion_ops'"
    ):
        bpf.load(code=HEAD + "struct tcp_congestion_op " + fields + OPS % "tcp_congestion_op")
    bpf.load(code=HEAD + OPS % "tcp_congestion_ops")


@pytest.mark.bpf_requires("fentry")
def test_a_function_with_variable_arguments(bpf, bpf_kernel):
    if not bpf_kernel.has("kprobe/_printk"):
        pytest.skip("this kernel has no kprobe/_printk")
    with pytest.raises(BpfError, match=r"variable number of arguments(?s:.*)-> use a kprobe"):
        bpf.load(code=HEAD + 'SEC("fentry/_printk") int prog(void *ctx) { return 0; }')
    bpf.load(code=HEAD + 'SEC("kprobe/_printk") int prog(void *ctx) { return 0; }').attach()


def test_a_variable_of_which_the_kernel_tells_no_type(bpf):
    if "init_task" not in symbols():
        pytest.skip("this kernel lists no variables (CONFIG_KALLSYMS_ALL)")
    use = (
        'SEC("tc") int prog(struct __sk_buff *skb) { long at = (long)&init_task; return at + skb->len != 0; }'
    )
    with pytest.raises(
        BpfError, match=r"has init_task, but its types do not(?s:.*)-> declare it without a type"
    ):
        bpf.load(code=HEAD + "extern const struct task_struct init_task __ksym;" + use)
    bpf.load(code=HEAD + "extern const void init_task __ksym;" + use)
