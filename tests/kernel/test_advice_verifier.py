"""Tests programs that verifiers reject with unclear words: each loads after our remedy."""

import re

import pytest

from pytest_bpfmaps import VerifierError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
struct val { __u32 len; char data[64]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, struct val); } a SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } rb SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 4); __uint(value_size, 8); } q SEC(".maps");
#define VALUE __u32 k = 0; struct val *v = bpf_map_lookup_elem(&a, &k); if (!v) return 0;
#define PACKET void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
"""
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { %s }'
TC = 'SEC("tc") int prog(struct __sk_buff *ctx) { %s }'
KPROBE = 'SEC("kprobe/vfs_read") int prog(struct pt_regs *ctx) { %s }'
RECORD = XDP % (
    "struct val *r = bpf_ringbuf_reserve(&rb, %s, 0); if (!r) return 0; r->data[5] = 1;"
    " bpf_ringbuf_submit(%s, 0); return 1;"
)
MAP = "struct { __uint(type, BPF_MAP_TYPE_%s); __uint(max_entries, 4); __type(key, __u32); "
MAP += "__type(value, %s); } "
NAMES = "const char %s = {%s};" + XDP % "return *names[ctx->rx_queue_index & 1];"
LOCKED = (
    "struct locked { struct bpf_spin_lock lock; int n; };"
    + MAP % ("ARRAY", "struct locked")
    + 'l SEC(".maps");'
)
BOTH = (
    LOCKED
    + TC
    % "__u32 k = 0, j = 1; struct locked *v = bpf_map_lookup_elem(&l, &k), *w = bpf_map_lookup_elem(&l, &j);"
    " if (!v || !w) return 0; bpf_spin_lock(&v->lock); v->n++; bpf_spin_unlock(&%s->lock); return 0;"
)
COPIED = LOCKED + TC % (
    "__u32 k = 0; struct locked *v = bpf_map_lookup_elem(&l, &k); if (!v) return 0; int n; %s return n;"
)
TIMERS = (
    "struct timed { struct bpf_timer timer; };"
    + MAP % ("ARRAY", "struct timed") + 't1 SEC(".maps"), t2 SEC(".maps");'
    + TC % "__u32 k = 0; struct timed *v = bpf_map_lookup_elem(&t1, &k);"
    " if (v) bpf_timer_init(&v->timer, &%s, 1); return 0;"
)  # fmt: skip
LOOP = (
    "static int add(__u32 i, int *sum) { *sum += i; return 0; }"
    + XDP % "int n = 0; bpf_loop(10, add, %s, 0); return n;"
)
DYNPTR = TC % "struct bpf_dynptr d; char c = 0; %s return c;"
SOCKOPT = (
    'SEC("cgroup/getsockopt") int prog(struct bpf_sockopt *ctx) { char *p = ctx->optval; %s return *p & 1; }'
)
DISSECT = 'SEC("flow_dissector") int prog(struct __sk_buff *ctx) { ctx->flow_keys->nhoff = 3; return %s; }'
TASKS = 'SEC("iter/task") int prog(struct bpf_iter__task *ctx) {'
TASKS += " struct task_struct *t = ctx->task; %s return t->pid & 1; }"
CONNECT = 'SEC("cgroup/connect4") int prog(struct bpf_sock_addr *ctx) { return ctx->%s & 1; }'
TWICE = "%s n = bpf_probe_read_kernel_str(v->data, 32, (void *)PT_REGS_PARM1(ctx)); %s"
TWICE = KPROBE % (
    "VALUE " + TWICE + " bpf_probe_read_kernel_str(v->data + n, 32, (void *)PT_REGS_PARM2(ctx)); return 0;"
)
COPY = "bpf_probe_read_kernel(%s, 4, (void *)PT_REGS_PARM2(ctx)); return 0;"
KFREE = 'SEC("fexit/kfree") int BPF_PROG(prog, const void *p%s) { return %s; }'

# the mistake; why and what to do, as the message says; the program after that was done
REJECTED = {
    "an index into the stack": (
        TC % "char b[16] = {}; b[ctx->len] = 1; return b[ctx->mark & 15];",
        "array on the stack is indexed", "i &= SIZE - 1",
        TC % "char b[16] = {}; b[ctx->len & 15] = 1; return b[ctx->mark & 15];",
    ),
    "a declaration that is no map's": (
        MAP % ("HASH", "__u64") + "lost;" + XDP % "__u32 k = 0; return bpf_map_lookup_elem(&lost, &k) != 0;",
        "gets a plain variable", r'put SEC\("\.maps"\)',
        MAP % ("HASH", "__u64") + 'lost SEC(".maps");'
        + XDP % "__u32 k = 0; return bpf_map_lookup_elem(&lost, &k) != 0;",
    ),
    "pointers in a table": (
        NAMES % ("*names[]", '"one", "two"'), "'names' holds addresses, which libbpf does not set",
        r"names\[\]\[16\]",
        NAMES % ("names[][16]", '"one", "two"'),
    ),
    "a lookup in a queue": (
        XDP % "__u32 k = 0; return bpf_map_lookup_elem(&q, &k) != 0;",
        "have no keys", r"_peek_elem\(\)",
        XDP % "__u64 n = 0; return bpf_map_peek_elem(&q, &n) != 0;",
    ),
    "a lookup in a ring buffer": (
        XDP % "__u32 k = 0; return bpf_map_lookup_elem(&rb, &k) != 0;",
        "have no keys", r"bpf_ringbuf_…\(\)",
        XDP % "return bpf_ringbuf_query(&rb, 0) != 0;",
    ),
    "a record that is too small": (
        RECORD % ("4", "r"), "reach byte 10 of memory that has 4", "sizeof", RECORD % ("sizeof(*r)", "r"),
    ),
    "a callback without its context": (
        LOOP % "0", "the pointer is NULL there", "&context", LOOP % "&n",
    ),
    "where a helper writes": (
        KPROBE % (COPY % "(void *)PT_REGS_PARM1(ctx)"), "writes to its first argument",
        "variable of the program",
        KPROBE % ("int copy; " + COPY % "&copy"),
    ),
    "an offset that may be negative": (
        TWICE % ("int", ""), "may be negative", r"if \(n < 0 \|\| n > SIZE - LENGTH\)",
        TWICE % ("__s64", "if (n < 0 || n > 64 - 32) return 0;"),
    ),
    "a sum in a packet": (
        XDP % "PACKET int *p = data; if ((void *)(p + 1) > end) return 0; __sync_fetch_and_add(p, 1);"
        " return 1;",
        "atomic operations are for", "read the number, add to it, and write it back",
        XDP % "PACKET int *p = data; if ((void *)(p + 1) > end) return 0; *p += 1; return 1;",
    ),
    "a sum in the context": (
        TC % "__sync_fetch_and_add(&ctx->mark, 1); return 1;",
        "atomic operations are for", "read the number, add to it, and write it back",
        TC % "ctx->mark += 1; return 1;",
    ),
    "another lock": (
        BOTH % "w", "not the lock that was taken", r"the same pointer as bpf_spin_lock\(\)", BOTH % "v",
    ),
    "a copy of a lock": (
        COPIED % "struct locked copy = *(volatile struct locked *)v; n = copy.n;",
        "reads or writes the whole value", "one by one", COPIED % "n = v->n;",
    ),
    "another map's timer": (
        TIMERS % "t2", "gets another map", "the map whose value has the timer", TIMERS % "t1",
    ),
    "a dynptr of the stack": (
        DYNPTR % "char b[16] = {}; bpf_dynptr_from_mem(b, sizeof(b), 0, &d);",
        "takes only the memory of a map's value", "value of an array map",
        DYNPTR % "VALUE bpf_dynptr_from_mem(v->data, 64, 0, &d);",
    ),
    "a dynptr that is written over": (
        DYNPTR % "VALUE bpf_dynptr_from_mem(v->data, 64, 0, &d); *(volatile int *)&d = 3;"
        " bpf_dynptr_read(&c, 1, &d, 0, 0);",
        "the dynptr has no memory there", "only with bpf_dynptr_…",
        DYNPTR % "VALUE bpf_dynptr_from_mem(v->data, 64, 0, &d); bpf_dynptr_read(&c, 1, &d, 0, 0);",
    ),
    "the length of a packet": (
        TC % "ctx->len = 64; return 0;", "may not write the field 'len'", r"bpf_skb_change_tail\(\)",
        TC % "return bpf_skb_change_tail(ctx, 64, 0);",
    ),
    "the start of a packet": (
        XDP % "ctx->data += 14; return 2;",
        "may not write the field 'data'|it is done with 32 bits",  # with clang before and after 20
        r"bpf_xdp_adjust_head\(\)",
        XDP % "return bpf_xdp_adjust_head(ctx, 14);",
    ),
    "the value of an option": (
        SOCKOPT % "", "not proven to be there", "optval_end",
        SOCKOPT % "if ((void *)(p + 1) > ctx->optval_end) return 1;",
    ),
    "a field that dissectors don't see": (
        DISSECT % "ctx->mark", "may not read the field 'mark' of struct __sk_buff", "own list",
        DISSECT % "ctx->flow_keys->nhoff",
    ),
    "the address of the other family": (
        CONNECT % "user_ip6[0]", "may not read the field 'user_ip6'", "user_ip4", CONNECT % "user_ip4",
    ),
    "the task of an iterator": (
        TASKS % "", "may be NULL", r"if \(!pointer\) return 0", TASKS % "if (!t) return 0;",
    ),
    "the result of a void function": (
        KFREE % (", int ret", "ret"), "more parameters", "a void function has none", KFREE % ("", "0"),
    ),
    "a function whose result stays": (
        'SEC("fmod_ret/vfs_read") int BPF_PROG(prog) { return 0; }', "may not", r'SEC\("fexit',
        'SEC("fexit/vfs_read") int BPF_PROG(prog) { return 0; }',
    ),
}  # fmt: skip
# the features that kernels must have, by the word in the program
_NEEDS = (("bpf_loop", "bpf_loop"), ("bpf_dynptr", "bpf_dynptr_from_mem"), ("bpf_timer", "bpf_timer_init"))


@pytest.mark.parametrize("name", REJECTED)
def test_what_is_said_helps(bpf, bpf_kernel, name):
    bad, why, fix, good = REJECTED[name]
    for word, helper in _NEEDS:
        if word in bad and not bpf_kernel.has(helper):
            pytest.skip(f"this kernel has no {helper}")
    section = re.search(r'SEC\("((?:kprobe|fexit|fmod_ret|iter|flow_dissector)[^"]*)"', bad)
    if section and not bpf_kernel.has(section[1].replace("fmod_ret/vfs_read", "fmod_ret")):
        pytest.skip(f"this kernel has no {section[1]}")
    with pytest.raises(VerifierError) as error:
        bpf.load(code=HEAD + bad)
    assert error.match(f"(?s){why}.*-> .*{fix}")
    bpf.load(code=HEAD + good)


def test_pointers_in_a_table_are_told_before_they_are_read_as_zero(bpf):
    """The helper takes any address, reads nothing from a wrong one, and no kernel complains."""
    read = "char c[8] = {}; bpf_probe_read_kernel_str(c, 8, %s); return c[0];"
    table = 'const char *names[] = {"one", "two"};' + XDP % read % "names[ctx->rx_queue_index & 1]"
    with pytest.warns(UserWarning, match=r"'names' holds addresses, .*reads 0 there; hold the texts"):
        loaded = bpf.load(code=HEAD + table)
    assert loaded.programs.prog.run(b"\0" * 64).retval == 0
    texts = 'const char names[][16] = {"one", "two"};' + XDP % read % "names[ctx->rx_queue_index & 1]"
    assert bpf.load(code=HEAD + texts).programs.prog.run(b"\0" * 64).retval == ord("o")


@pytest.mark.parametrize("wrong", ["ctx->data = 0; return 0;", "ctx->data -= 8; return 0;"])
def test_room_in_a_packet(bpf, wrong):
    """Both helpers of the remedy make room where it says."""
    with pytest.raises(VerifierError) as error:
        bpf.load(code=HEAD + TC % wrong)
    text = str(error.value)
    assert "may not write the field 'data'" in text or "it is done with 32 bits" in text
    fix = text.partition("  -> ")[2]
    assert "bpf_skb_change_head()" in fix
    assert "bpf_skb_adjust_room()" in fix
    ethernet, rest = bytes(12) + b"\x08\x00", bytes(range(1, 51))
    loaded = bpf.load(code=HEAD + TC % "return bpf_skb_change_head(ctx, 8, 0);")
    result = loaded.programs.prog.run(ethernet + rest)
    assert (result.retval, result.data) == (0, bytes(8) + ethernet + rest)
    loaded = bpf.load(code=HEAD + TC % "return bpf_skb_adjust_room(ctx, 8, BPF_ADJ_ROOM_MAC, 0);")
    result = loaded.programs.prog.run(ethernet + rest)
    assert result.retval == 0
    assert len(result.data) == len(ethernet) + 8 + len(rest)
    assert result.data.startswith(ethernet)
    assert result.data.endswith(rest)
