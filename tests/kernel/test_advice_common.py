"""Tests the most common mistakes in BPF programs: each program loads after the message's remedy."""

import pytest
from replaced_names import replaced

from pytest_bpfmaps import AttachError, LoadError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
struct {
    __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64);
} m SEC(".maps");
struct val { __u64 n[4]; char text[64]; };
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, struct val);
} a SEC(".maps");
"""


def xdp(body):
    return f'SEC("xdp") int prog(struct xdp_md *ctx) {{ {body} }}'


def tc(body):
    return f'SEC("tc") int prog(struct __sk_buff *skb) {{ {body} }}'


ENDS = "char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;"
VALUE = "__u32 k = 0; struct val *v = bpf_map_lookup_elem(&a, &k); if (!v) return 0;"
FACTORIAL = """
static __attribute__((noinline)) int f(int n) { return n < 2 ? 1 : n * f(n - 1) + f(n - 2); }
SEC("xdp") int prog(struct xdp_md *ctx) { return f(ctx->rx_queue_index) & 1; }
"""
LOOP = """
static __attribute__((noinline)) int f(int n)
{
    int r = 1;
    for (int i = 2; i < 12 && i <= n; i++)
        r *= i;
    return r;
}
SEC("xdp") int prog(struct xdp_md *ctx) { return f(ctx->rx_queue_index) & 1; }
"""
CALLS_BACK = """
static long each(void *map, __u32 *k, __u64 *v, void *ctx) { return RESULT; }
SEC("xdp") int prog(struct xdp_md *ctx) { bpf_for_each_map_elem(&m, each, 0, 0); return 2; }
"""
TIMER = """
struct timed { struct bpf_timer timer; };
struct {
    __uint(type, BPF_MAP_TYPE_KIND); __uint(max_entries, 1); __type(key, __u32); __type(value, struct timed);
} timers SEC(".maps");
SEC("tc") int prog(struct __sk_buff *skb)
{
    __u32 k = 0;
    struct timed *v = bpf_map_lookup_elem(&timers, &k);
    return v ? bpf_timer_init(&v->timer, &timers, 1) & 1 : 0;
}
"""
REDIRECT = """
struct { __uint(type, BPF_MAP_TYPE_KIND); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); }
    to SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx) { return bpf_redirect_map(&to, 0, 0); }
"""
TAIL = """
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __type(key, __u32);
         __type(value, __u32); } progs SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx) { int x = 0; bpf_tail_call(GIVEN, &progs, 0); return 2; }
"""
STATIC = """
LINKAGE struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
                 __type(value, __u64); } own SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx) { __u32 k = 0; return bpf_map_lookup_elem(&own, &k) != 0; }
"""
LOCKED = """
struct locked { struct bpf_spin_lock lock; __u32 n; };
struct {
    __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, struct locked);
} guarded SEC(".maps");
SEC("tc") int prog(struct __sk_buff *skb)
{
    __u32 k = 0;
    struct locked *v = bpf_map_lookup_elem(&guarded, &k);
    if (!v)
        return 0;
    BEFORE
    bpf_spin_lock((void *)&v->lock);
    v->n = VALUE;
    bpf_spin_unlock((void *)&v->lock);
    return 0;
}
"""
NESTED = """
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
               __type(value, __u64); };
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
         __array(values, struct inner); } outer SEC(".maps");
SEC("tc") int prog(struct __sk_buff *skb)
{
    __u32 k = 0;
    void *inner = bpf_map_lookup_elem(&outer, &k);
    CHECK
    return bpf_map_lookup_elem(inner, &k) != 0;
}
"""
ENDLESS = """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    for (int i = 0; BOUND; i++) {
        if (ctx->rx_queue_index == 77)
            break;
        asm volatile("" ::: "memory");
    }
    return 2;
}
"""
NAKED = 'SEC("xdp") __attribute__((naked)) int prog(void *ctx) { asm volatile("r0 = 2; exit; MORE"); }'
CONST = (
    'CONST volatile int n = 1; SEC("xdp") int prog(struct xdp_md *ctx) { *(volatile int *)&n = 2; return 2; }'
)


@pytest.mark.parametrize(
    ("code", "bad", "good", "why"),
    [
        pytest.param(
            xdp(f"{ENDS} if (CHECK) return 2; return data[0] & 1;"),
            {"CHECK": "data > end - 14"},
            {"CHECK": "data + 14 > end"},
            r"data_end may only be compared(.*\n)*.*if \(data \+ SIZE > data_end\)",
            id="data-end",
        ),
        pytest.param(
            xdp(f"{ENDS} if (data + SIZE > end) return 2; return data[14] & 1;"),
            {"SIZE": "14"},
            {"SIZE": "15"},
            r"it has proven 14, but goes on to byte 15\n(.*\n)*.*15 bytes after the same pointer",
            id="one-too-few",
        ),
        pytest.param(
            tc(f"{VALUE} BOUND return bpf_skb_load_bytes(skb, 0, v->text, n) & 1;"),
            {"BOUND": "__u64 n = skb->len; n = (n & 127) + 1;"},
            {"BOUND": "__s64 n = skb->len; if (n > 64) return 0; barrier_var(n); if (n < 1) return 0;"},
            r"can reach byte 160 of a map's value that has 96\n(.*\n)*.*if \(i >= SIZE\) return 0",
            id="value",
        ),
        pytest.param(
            xdp("long k = 5; return bpf_map_lookup_elem(&m, GIVEN) ? 1 : 2;"),
            {"GIVEN": "(void *)k"},
            {"GIVEN": "&k"},
            r"has to be a pointer, but the helper gets a number\n(.*\n)*.*address: &key",
            id="number",
        ),
        pytest.param(
            TAIL, {"GIVEN": "&x"}, {"GIVEN": "ctx"}, "has to be the program's own context", id="context"
        ),
        pytest.param(
            'SEC("cgroup/connect4") int prog(struct bpf_sock_addr *ctx) { return RESULT; }',
            {"RESULT": "-1"},
            {"RESULT": "0"},
            r"return 0 to 1, but this one returns another value\n(.*\n)*.*1 allows, and 0 refuses",
            id="returned",
        ),
        pytest.param(
            FACTORIAL,
            {},
            {FACTORIAL: LOOP},
            r"function (that )?calls itself(.*\n)*.*by a loop",
            id="recursion",
        ),
        pytest.param(
            CALLS_BACK,
            {"RESULT": "5"},
            {"RESULT": "0"},
            r"callback may return only 0 or 1",
            id="called-back",
            marks=pytest.mark.bpf_requires("bpf_for_each_map_elem"),
        ),
        pytest.param(
            TIMER,
            {"KIND": "PERCPU_ARRAY"},
            {"KIND": "ARRAY"},
            "values of this map type may not have such a field",
            id="timer",
            marks=pytest.mark.bpf_requires("bpf_timer_init"),
        ),
        pytest.param(
            REDIRECT,
            {"KIND": "ARRAY"},
            {"KIND": "DEVMAP"},
            r"bpf_redirect_map\(\) does not take maps of this type(.*\n)*.*BPF_MAP_TYPE_DEVMAP",
            id="redirect",
        ),
        pytest.param(STATIC, {"LINKAGE": "static"}, {"LINKAGE": ""}, r"map 'own' is static", id="static-map"),
        pytest.param(
            CONST,
            {"CONST": "const"},
            {"CONST": ""},
            r"writes to a const variable(.*\n)*.*the const",
            id="const",
        ),
        pytest.param(
            xdp(
                "__u32 k = 0; __u64 *v = bpf_map_lookup_elem(&m, &k); FIRST"
                ' asm volatile("%0 += 4" : "+r"(v)); THEN return *(char *)v & 1;'
            ),
            {"FIRST": "", "THEN": "if (!v) return 0;"},
            {"FIRST": "if (!v) return 0;", "THEN": ""},
            r"may be NULL(.*\n)*.*if \(!pointer\)",
            id="null-added-to",
        ),
        pytest.param(
            xdp(f"{ENDS} return *FROM & 1;").replace("return", "CHECK return"),
            {"FROM": "end", "CHECK": ""},
            {"FROM": "data", "CHECK": "if (data + 1 > end) return 2;"},
            r"or read there\n(.*\n)*.*calculate with the packet's own pointer",
            id="behind-the-end",
        ),
        pytest.param(
            LOCKED,
            {"BEFORE": "", "VALUE": "bpf_get_prandom_u32()"},
            {"BEFORE": "__u32 n = bpf_get_prandom_u32();", "VALUE": "n"},
            r"between bpf_spin_lock\(\) and bpf_spin_unlock\(\)(.*\n)*.*keep calls .* out",
            id="call-under-lock",
        ),
        pytest.param(
            LOCKED.replace("struct bpf_spin_lock lock", "FIELD lock"),
            {"FIELD": "__u32", "BEFORE": "", "VALUE": "1"},
            {"FIELD": "struct bpf_spin_lock", "BEFORE": "", "VALUE": "1"},
            r"has no such special field(.*\n)*.*into the struct of the map's value",
            id="no-lock",
        ),
        pytest.param(
            NESTED,
            {"CHECK": ""},
            {"CHECK": "if (!inner) return 0;"},
            r"may be NULL(.*\n)*.*if \(!pointer\)",
            id="inner-map",
        ),
        pytest.param(
            xdp('asm volatile("r1 = 0; *(u64 *)(r10 - PLACE) = r1;" ::: "r1"); return 2;'),
            {"PLACE": "15"},
            {"PLACE": "16"},
            r"not aligned to its size(.*\n)*.*so that the field is aligned",
            id="misaligned",
        ),
        pytest.param(
            ENDLESS,
            {"BOUND": "1"},
            {"BOUND": "i < 100"},
            r"the verifier can't see that a loop(.*\n)*.*bound it by a constant",
            id="endless",
        ),
        pytest.param(
            NAKED,
            {"MORE": "r0 = 1; exit;"},
            {"MORE": ""},
            r"can never run(.*\n)*.*remove the code after",
            id="unreachable",
        ),
        pytest.param(
            xdp("long p = FROM; return p & 8;"),
            {"FROM": "(long)ctx"},
            {"FROM": "ctx->rx_queue_index"},
            r"BPF does not allow that arithmetic with a pointer",
            id="pointer-and",
        ),
    ],
)
def test_what_is_said_helps(bpf, code, bad, good, why):
    with pytest.raises(LoadError, match=why):
        bpf.load(code=HEAD + replaced(code, bad))
    bpf.load(code=HEAD + replaced(code, good))


def test_a_callback_where_the_kernel_knows_none(bpf, bpf_kernel):
    if bpf_kernel.has("bpf_for_each_map_elem"):
        pytest.skip("this kernel calls functions back: see it on Linux 5.10, pytest --bpf-kernel=5.10")
    with pytest.raises(LoadError, match="callback, which this kernel does not allow"):
        bpf.load(code=HEAD + CALLS_BACK.replace("RESULT", "0"))


def test_a_helper_that_is_missing_beside_one_that_is_there(bpf, bpf_kernel):
    if bpf_kernel.has("bpf_timer_init"):
        pytest.skip("this kernel has timers: see it on Linux 5.10, pytest --bpf-kernel=5.10")
    code = TIMER.replace("BPF_MAP_TYPE_KIND", "BPF_MAP_TYPE_ARRAY")
    with pytest.raises(LoadError, match=r"has no such helper as bpf_timer_init(.*\n)*.*bpf_requires"):
        bpf.load(code=HEAD + code)


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("cgroup/foo", "cgroup/skb"),
        ("tc_cls", "tc"),
        ("tc/x", "tc/ingress"),
        ("kprobe_do_unlinkat", "kprobe/do_unlinkat"),
        ("tracepoints/sched/sched_switch", "tracepoint/sched/sched_switch"),
    ],
)
def test_a_section_that_is_meant(bpf, bad, good):
    code = HEAD + 'SEC("SECTION") int prog(void *ctx) { return 1; }'
    with pytest.raises(LoadError) as error:
        bpf.load(code=code.replace("SECTION", bad))
    assert error.value.fix.startswith(f"did you mean {good!r}")
    assert f"{bad!r}" not in error.value.fix
    assert "newer libbpf" not in str(error.value)
    bpf.open(code=code.replace("SECTION", good))


def test_an_object_without_programs(bpf):
    with pytest.raises(AttachError, match=r"it has no program\n  -> write a function"):
        bpf.load(code=HEAD).attach()
    bpf.load(code=HEAD + xdp("return 2;"))


def test_a_live_map_of_another_type(bpf):
    code = HEAD + xdp("__u32 k = 0; return bpf_map_lookup_elem(&m, &k) ? 1 : 2;")
    live = bpf.create_map("array", key="u32", value="u64", max_entries=4)
    with pytest.raises(LoadError, match=r"type is array, not hash\n  -> give a map .*bpf\.load\(…, maps=…\)"):
        bpf.load(code=code, reuse={"m": live})
    bpf.load(code=code, maps={"m": {"type": "array"}}, reuse={"m": live})
