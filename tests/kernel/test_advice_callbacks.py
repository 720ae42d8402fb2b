"""Tests refusals about callbacks, timers, dynptrs, maps of maps and helpers of other types of program.

Each program is of a kind that people ask about. It loads after the message's remedy.
"""

import re

import pytest

from pytest_bpfmaps import BpfError

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
#define U64(kind) __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, 4); __type(key, __u32); \\
    __type(value, __u64)
#define U32(kind) __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, 4); __type(key, __u32); \\
    __type(value, __u32)
struct { U64(HASH); } h SEC(".maps");
struct { U64(PERCPU_HASH); } each_cpu SEC(".maps");
struct { U32(SOCKHASH); } socks SEC(".maps");
struct { U32(DEVMAP); } devices SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } records SEC(".maps");
struct inner { U64(ARRAY); };
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
         __array(values, struct inner); } outer SEC(".maps");
struct elem { struct bpf_timer timer; __u64 n; };
struct locked { struct bpf_spin_lock lock; __u64 n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, struct locked); } locks SEC(".maps");
#define LOCKED __u32 k = 0; struct locked *l = bpf_map_lookup_elem(&locks, &k); if (!l) return 1;
"""
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { %s }'
TC = 'SEC("tc") int prog(struct __sk_buff *ctx) { %s }'
SYSCALL = 'SEC("syscall") int prog(void *ctx) { %s }'
STARTS = (
    "__u32 k = 0; struct elem *e = bpf_map_lookup_elem(&timers, &k); if (!e) return 1;"
    " bpf_timer_init(&e->timer, &timers, 1); bpf_timer_set_callback(&e->timer, expired);"
    " bpf_timer_start(&e->timer, 1000000, 0); return 0;"
)
TYPES = "__type(key, __u32); __type(value, struct elem);"


def timer(types=TYPES, kind="ARRAY", returned="0", program=XDP):
    return (
        f"struct {{ __uint(type, BPF_MAP_TYPE_{kind}); __uint(max_entries, 1); {types} }}"
        ' timers SEC(".maps");'
        f"static int expired(void *map, __u32 *key, struct elem *e) {{ return {returned}; }}"
        f"{program % STARTS}"
    )


def loop(returned, static="static"):
    step = f"{static} int step(__u32 i, void *c) {{ if (c) *(int *)c += i; return {returned}; }}"
    return step + XDP % "int n = 0; bpf_loop(10, step, &n, 0); return n ? 2 : 1;"


def each(body):
    callback = f"static long each(void *map, __u32 *key, __u64 *value, void *c) {{ {body} }}"
    return callback + XDP % "bpf_for_each_map_elem(&h, each, 0, 0); return 2;"


DYNPTR = (
    "struct bpf_dynptr d; bpf_ringbuf_reserve_dynptr(&records, 8, 0, &d);"
    " __u64 *n = bpf_dynptr_data(&d, 0, 8); %s return 2;"
)
RESERVES = (
    "__u64 n = 1; struct bpf_dynptr d; if (bpf_ringbuf_reserve_dynptr(&records, 8, 0, &d)) { %s return 1; }"
    " bpf_dynptr_write(&d, 0, &n, 8, 0); bpf_ringbuf_submit_dynptr(&d, 0); return 2;"
)
KEY = "__u32 k = 0; __u64 n = 1; "
INNER = "void *inner = bpf_map_lookup_elem(&outer, &k); "
SOCK_OPS = 'SEC("sockops") int prog(struct bpf_sock_ops *ctx) { %s }'
MSG = 'SEC("sk_msg") int prog(struct sk_msg_md *ctx) { %s }'
ARENA = """
struct { __uint(type, 33); __uint(map_flags, 1 << 10); __uint(max_entries, 2); } arena SEC(".maps");
#define __arena __attribute__((address_space(1)))
void __arena *bpf_arena_alloc_pages(void *map, void __arena *at, __u32 pages, int node, __u64 flags) __ksym;
int __arena *first;
"""
RCU = "void bpf_rcu_read_lock(void) __ksym; void bpf_rcu_read_unlock(void) __ksym;"
STACK = (
    "static __noinline int below(int n) { volatile char x[%s]; x[n & 127] = n; return x[0]; }"
    + XDP
    % "volatile char y[300]; y[ctx->rx_queue_index & 255] = 1; return below(ctx->rx_queue_index) + y[0];"
)

# the mistake; why and what to do, as the message says; the program after that was done; what it needs
CASES = {
    "a timer in a map without types": (
        timer("__uint(key_size, 4); __uint(value_size, sizeof(struct elem));"),
        "declared with sizes and without types", r"__type\(value", timer(), "bpf_timer_init",
    ),
    "a timer in a per-CPU map": (
        timer(kind="PERCPU_ARRAY"), "of this map type may not have such a field", "not of a per-CPU map",
        timer(), "bpf_timer_init",
    ),
    "a timer's callback that returns 1": (
        timer(returned="1"), "may return only 0", "return 0", timer(), "bpf_timer_init",
    ),
    "a callback that returns a number": (
        loop("i - 1"), "only 0 or 1", "1 to stop", loop("i > 5"), "bpf_loop",
    ),
    "a callback that is a global function": (
        loop("0", static=""), "global function", "declare it static", loop("0"), "bpf_loop",
    ),
    "a callback that changes the key": (
        each("*key = 3; return 0;"), "changes the key", "copy the key",
        each("__u32 copy = *key; copy = 3; bpf_map_update_elem(&h, &copy, value, 0);"
             " copy = *key; bpf_map_delete_elem(&h, &copy); return 0;"),
        "bpf_for_each_map_elem",
    ),
    "a dynptr's memory after the record was submitted": (
        XDP % (DYNPTR % "bpf_ringbuf_submit_dynptr(&d, 0); if (n) *n = 1;"), "used after its release",
        "move the use before", XDP % (DYNPTR % "if (n) *n = 1; bpf_ringbuf_submit_dynptr(&d, 0);"),
        "bpf_dynptr_data",
    ),
    "a dynptr that could not be reserved": (
        XDP % (RESERVES % ""), "not released on some path", r"bpf_ringbuf_discard_dynptr\(\)",
        XDP % (RESERVES % "bpf_ringbuf_discard_dynptr(&d, 0);"), "bpf_dynptr_write",
    ),
    "an inner map that may be absent": (
        XDP % (KEY + INNER + "return bpf_map_lookup_elem(inner, &k) ? 2 : 1;"), "may be NULL", "check it",
        XDP % (KEY + INNER + "if (!inner) return 1; return bpf_map_lookup_elem(inner, &k) ? 2 : 1;"), "xdp",
    ),
    "a value that is put into a map of maps": (
        XDP % (KEY + "return bpf_map_update_elem(&outer, &k, &n, 0);"), "does not take a map of maps",
        r"if \(inner\) bpf_map_update_elem",
        XDP % (KEY + INNER + "if (inner) bpf_map_update_elem(inner, &k, &n, 0); return 2;"), "xdp",
    ),
    "an element of a CPU in a map without": (
        XDP % (KEY + "return bpf_map_lookup_percpu_elem(&h, &k, 0) ? 2 : 1;"), "a value for each CPU",
        "PERCPU_HASH", XDP % (KEY + "return bpf_map_lookup_percpu_elem(&each_cpu, &k, 0) ? 2 : 1;"),
        "bpf_map_lookup_percpu_elem",
    ),
    "an address that a sock_ops program writes": (
        SOCK_OPS % "ctx->remote_ip4 = 0; return 1;", "may not write the field 'remote_ip4'", "ctx->user_ip4",
        'SEC("cgroup/connect4") int prog(struct bpf_sock_addr *ctx) { ctx->user_ip4 = 0; return 1; }',
        "sock_ops",
    ),
    "a packet's hash": (
        TC % "ctx->hash = 1; return 0;", "may not write the field 'hash'", "bpf_set_hash",
        TC % "return bpf_set_hash(ctx, 1);", "sched_cls",
    ),
    "a helper of sock_ops programs": (
        MSG % (KEY + "return bpf_sock_hash_update((void *)ctx, &socks, &k, 0);"), "does not allow it in this",
        "allows it in programs of type sock_ops$",
        SOCK_OPS % (KEY + "bpf_sock_hash_update(ctx, &socks, &k, 0); return 1;"), "sock_ops", "sk_msg",
    ),
    "a helper of XDP programs": (
        TC % "return bpf_redirect_map(&devices, 0, 0);", "does not allow it in this",
        "allows it in programs of type xdp$", XDP % "return bpf_redirect_map(&devices, 0, 0);", "xdp",
    ),
    "an arena that is not named": (
        ARENA + SYSCALL % "return first ? *first : 0;", "no map of type BPF_MAP_TYPE_ARENA",
        "bpf_arena_alloc_pages",
        ARENA + SYSCALL % "first = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0); return first ? *first : 0;",
        "arena",
    ),
    "a helper while a lock is held": (
        XDP % "LOCKED bpf_spin_lock(&l->lock); l->n = bpf_ktime_get_ns(); bpf_spin_unlock(&l->lock);"
        " return 2;",
        r"between bpf_spin_lock\(\) and", "keep calls",
        XDP % "LOCKED __u64 now = bpf_ktime_get_ns(); bpf_spin_lock(&l->lock); l->n = now;"
        " bpf_spin_unlock(&l->lock); return 2;",
        "xdp",
    ),
    "a result of a fentry program": (
        'SEC("fentry/vfs_read") int prog(void *ctx) { return 1; }', "programs of this type return 0",
        "return 0",
        'SEC("fentry/vfs_read") int prog(void *ctx) { return 0; }', "fentry",
    ),
    "a region that a path leaves": (
        RCU + XDP % "bpf_rcu_read_lock(); if (ctx->rx_queue_index == 7) return 1; bpf_rcu_read_unlock();"
        " return 2;",
        "leaves the region", r"bpf_rcu_read_unlock\(\)",
        RCU + XDP % "bpf_rcu_read_lock(); if (ctx->rx_queue_index == 7) { bpf_rcu_read_unlock(); return 1; }"
        " bpf_rcu_read_unlock(); return 2;",
        "bpf_rcu_read_lock",
    ),
    "two functions with large variables": (
        STACK % "256", "more than its 512 bytes of stack", "per-CPU array map", STACK % "128", "xdp",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.bpf_requires(*case[4:])) for name, case in CASES.items()]
)
def test_what_is_said_helps(bpf, name):
    bad, why, fix, good, *_ = CASES[name]
    with pytest.raises(BpfError) as error:
        bpf.load(code=HEAD + bad)
    assert error.match(f"(?s){why}")
    assert re.search(fix, str(error.value).partition("\n  -> ")[2], re.MULTILINE)
    bpf.load(code=HEAD + good)


@pytest.mark.bpf_requires("bpf_timer_init", "tracepoint", "syscall")
def test_a_timer_of_a_tracing_program_is_explained_where_it_is_refused(bpf):
    said = ""
    try:
        bpf.load(code=HEAD + timer(program='SEC("tp/sched/sched_switch") int prog(void *ctx) { %s }'))
    except BpfError as error:  # new kernels take it
        said = str(error)
    assert not said or re.search(r'(?s)hold a timer.*\n  -> .*SEC\("syscall"\)', said)
    bpf.load(code=HEAD + timer(program=SYSCALL))


# a helper that may move the packet, with its arguments; (the program's type, the type of its context)
MOVES = {
    "bpf_skb_pull_data(ctx, 64)": ("tc", "__sk_buff"),
    "bpf_skb_change_head(ctx, 8, 0)": ("tc", "__sk_buff"),
    "bpf_skb_change_tail(ctx, 64, 0)": ("tc", "__sk_buff"),
    "bpf_skb_change_proto(ctx, 8, 0)": ("tc", "__sk_buff"),
    "bpf_skb_adjust_room(ctx, 8, BPF_ADJ_ROOM_MAC, 0)": ("tc", "__sk_buff"),
    "bpf_skb_store_bytes(ctx, 0, &one, 1, 0)": ("tc", "__sk_buff"),
    "bpf_skb_vlan_push(ctx, 8, 1)": ("tc", "__sk_buff"),
    "bpf_skb_vlan_pop(ctx)": ("tc", "__sk_buff"),
    "bpf_clone_redirect(ctx, 1, 0)": ("tc", "__sk_buff"),
    "bpf_l3_csum_replace(ctx, 24, 0, 1, 2)": ("tc", "__sk_buff"),
    "bpf_l4_csum_replace(ctx, 34, 0, 1, 2)": ("tc", "__sk_buff"),
    "bpf_xdp_adjust_head(ctx, 8)": ("xdp", "xdp_md"),
    "bpf_xdp_adjust_tail(ctx, -8)": ("xdp", "xdp_md"),
    "bpf_xdp_adjust_meta(ctx, -8)": ("xdp", "xdp_md"),
    "bpf_msg_pull_data(ctx, 0, 8, 0)": ("sk_msg", "sk_msg_md"),
    "bpf_msg_push_data(ctx, 0, 8, 0)": ("sk_msg", "sk_msg_md"),
    "bpf_msg_pop_data(ctx, 0, 8, 0)": ("sk_msg", "sk_msg_md"),
}
READ = "data = (void *)(long)ctx->data; end = (void *)(long)ctx->data_end; if (data + 14 > end) return 1;"


@pytest.mark.parametrize("call", MOVES)
def test_each_helper_that_may_move_the_packet_is_named(bpf, call):
    section, context = MOVES[call]
    code = (
        f'SEC("{section}") int prog(struct {context} *ctx) {{ char one = 1; char *data, *end; {READ}'
        f" if ({call}) return one; AGAIN return data[3]; }}"
    )
    again = READ
    if section == "sk_msg":  # its fields are pointers
        code, again = (text.replace("(void *)(long)", "(void *)") for text in (code, again))
    helper = call.partition("(")[0]
    with pytest.raises(BpfError, match=rf"{helper}\(\) may move the packet") as error:
        bpf.load(code=HEAD + code.replace("AGAIN", ""))
    assert "-> read data and data_end again" in str(error.value)
    bpf.load(code=HEAD + code.replace("AGAIN", again))
