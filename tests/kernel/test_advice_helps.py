"""Tests refused programs: each loads after the change that the message names."""

import pytest
from replaced_names import replaced

from pytest_bpfmaps import AttachError, CompileError, LoadError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
"""
PULL = """
SEC("tc") int prog(struct __sk_buff *skb)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ethhdr *eth = data;
    if ((void *)(eth + 1) > end || bpf_skb_pull_data(skb, 64))
        return 0;
    AGAIN
    return eth->h_proto == bpf_htons(0x0800) ? 2 : 0;
}
"""
AGAIN = """
    data = (void *)(long)skb->data, end = (void *)(long)skb->data_end;
    eth = data;
    if ((void *)(eth + 1) > end)
        return 0;
"""
LOCK = """
struct v { struct bpf_spin_lock lock; __u64 n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
         __type(value, struct v); } m SEC(".maps");
SEC("kprobe/do_unlinkat") int prog(void *ctx)
{
    __u32 k = 0;
    struct v *v = bpf_map_lookup_elem(&m, &k);
    if (!v)
        return 0;
    bpf_spin_lock(&v->lock); v->n++; bpf_spin_unlock(&v->lock);
    return 0;
}
"""
UNDER_LOCK = "bpf_spin_lock(&v->lock); v->n++; bpf_spin_unlock(&v->lock);"
CB = """
SEC("tc") int prog(struct __sk_buff *skb)
{
    __u32 i = bpf_get_prandom_u32() & 3;
    READ
}
"""
COMM = """
TEXT char want[16] = "bash";
SEC("kprobe/do_unlinkat") int prog(void *c)
{
    char comm[16];
    bpf_get_current_comm(comm, 16);
    return bpf_strncmp(comm, 16, want);
}
"""
KEY = """
struct NAME { __u32 ip; __u16 port; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, struct NAME);
         __type(value, __u64); } m SEC(".maps");
SEC("tc") int prog(struct __sk_buff *skb)
{
    struct NAME k INIT;
    __u64 one = 1;
    k.ip = skb->mark; k.port = skb->vlan_tci;
    bpf_map_update_elem(&m, &k, &one, 0);
    return 0;
}
"""
TASK = """
struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
void bpf_task_release(struct task_struct *p) __ksym;
SEC("tp_btf/task_newtask") int prog(void *ctx)
{
    struct task_struct *t = bpf_task_acquire(TASK);
    if (t)
        bpf_task_release(t);
    return 0;
}
"""
FROM_PID = """
extern struct task_struct *bpf_task_from_pid(int pid)KSYM;
void bpf_task_release(struct task_struct *p) __ksym;
SEC("tp_btf/task_newtask") int prog(void *ctx)
{
    struct task_struct *t = bpf_task_from_pid(1);
    if (t)
        bpf_task_release(t);
    return 0;
}
"""
HOOK = 'SEC("lsm/file_open") int BPF_PROG(prog, struct file *file, MASK int ret) { return RET; }'
RETURN_COPY = "__u32 cb[5] = {skb->cb[0], skb->cb[1], skb->cb[2], skb->cb[3], skb->cb[4]}; return cb[i];"


@pytest.mark.parametrize(
    ("code", "bad", "good", "why"),
    [
        pytest.param(
            PULL, {"AGAIN": ""}, {"AGAIN": AGAIN}, r"bpf_skb_pull_data\(\) may move the packet", id="pull"
        ),
        pytest.param(
            LOCK,
            {"kprobe/do_unlinkat": "kprobe/do_unlinkat"},
            {
                "struct bpf_spin_lock lock; ": "",
                UNDER_LOCK: "__atomic_fetch_add(&v->n, 1, __ATOMIC_RELAXED);",
            },
            "programs of this type may not use maps whose values",
            id="lock",
        ),
        pytest.param(
            CB,
            {"READ": "return skb->cb[i];"},
            {"READ": RETURN_COPY},
            "read at an offset that is not constant",
            id="context",
        ),
        pytest.param(
            COMM,
            {"TEXT": ""},
            {"TEXT": "const"},
            "text that can't change",
            id="text",
            marks=pytest.mark.bpf_requires("bpf_strncmp"),
        ),
        pytest.param(
            KEY,
            {"NAME": "key", "INIT": "= {}"},
            {"NAME": "flow", "INIT": "= {}"},
            "vmlinux.h has a key of its own",
            id="name",
        ),
        pytest.param(
            TASK,
            {"TASK": "(void *)bpf_get_current_task()"},
            {"TASK": "bpf_get_current_task_btf()"},
            "needs a pointer that the verifier knows",
            id="task",
            marks=pytest.mark.bpf_requires("tp_btf", "bpf_task_from_pid"),
        ),
        pytest.param(
            FROM_PID,
            {"KSYM": ""},
            {"KSYM": " __ksym"},
            "bpf_task_from_pid is a function of the kernel, but is not declared as one",
            id="ksym",
            marks=pytest.mark.bpf_requires("tp_btf", "bpf_task_from_pid"),
        ),
        pytest.param(
            HOOK,
            {"MASK": "int mask, ", "RET": "mask & 2 ? -1 : ret"},
            {"MASK": "", "RET": "ret"},
            "declares more parameters than the kernel's function or hook has",
            id="hook",
            marks=pytest.mark.bpf_requires("lsm"),
        ),
    ],
)
def test_what_is_said_helps(bpf, code, bad, good, why):
    with pytest.raises((LoadError, CompileError), match=why):
        bpf.load(code=HEAD + replaced(code, bad))
    bpf.load(code=HEAD + replaced(code, good))


RECORD = """
SEC("tracepoint/syscalls/sys_enter_close") int prog(struct TYPE *ctx) { return ctx->args[INDEX] == 0; }
"""


@pytest.mark.bpf_requires("tracepoint/syscalls/sys_enter_close")
def test_the_end_of_a_tracepoints_record(bpf):
    wide = "struct wide { struct trace_entry ent; long id; long args[10]; };\n"
    with pytest.raises(AttachError, match="reads beyond the end of the tracepoint's record"):
        bpf.load(code=HEAD + wide + replaced(RECORD, {"TYPE": "wide", "INDEX": "9"})).attach()
    bpf.load(code=HEAD + replaced(RECORD, {"TYPE": "trace_event_raw_sys_enter", "INDEX": "0"})).attach()


REPLACED = """
__attribute__((noinline)) int verdict(struct xdp_md *ctx) { volatile int r = 2; return r; }
SEC("xdp") int base(struct xdp_md *ctx) { return verdict(ctx); }
"""


@pytest.mark.bpf_requires("ext")
def test_a_replacement_is_declared_as_what_it_replaces(bpf):
    base = bpf.load(code=HEAD + REPLACED).programs.base

    def patch(parameters):
        code = f'SEC("freplace/verdict") int patched({parameters}) {{ return 1; }}'
        opened = bpf.open(code=HEAD + code)
        opened.programs.patched.set_attach_target("verdict", base)
        return opened.load()

    with pytest.raises(LoadError, match="differs from that of the function that it replaces"):
        patch("struct xdp_md *ctx, int x")
    patch("struct xdp_md *ctx").close()
