"""Tests calls and arguments that the verifier refuses: each program loads after the message's remedy."""

import pytest
from replaced_names import replaced

from pytest_bpfmaps import AttachError, LoadError, VerifierError
from pytest_bpfmaps.objects.diagnosis.libbpf_log import absent_weak
from pytest_bpfmaps.verifier.log import parse_log

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
"""
KEY = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u64); __type(value, __u64); }
    m SEC(".maps");
SEC("tc") int prog(struct __sk_buff *skb)
{
    WIDTH key = skb->mark;
    return bpf_map_lookup_elem(&m, &key) != 0;
}
"""
STORED = """
SEC("tc") int prog(struct __sk_buff *skb)
{
    char start[8];
    return bpf_skb_load_bytes(skb, 0, start, SIZE);
}
"""
LENGTH = """
char text[64];
__u32 size;
SEC("tc") int prog(struct __sk_buff *skb)
{
    WIDTH length = size;
    BOUND
    return bpf_skb_load_bytes(skb, 0, text, length) & 0;
}
"""
WEAK = """
extern int bpf_function_of_nobody(int x) __ksym __weak;
SEC("tc") int prog(struct __sk_buff *skb)
{
    GUARD skb->mark = bpf_function_of_nobody(skb->len) + 3;
    return 0;
}
"""
WEAK_RETURNED = """
extern int bpf_function_of_nobody(int x) __ksym __weak;
SEC("tc") int prog(struct __sk_buff *skb) { GUARD return bpf_function_of_nobody(skb->len); return 0; }
"""
WEAK_VOID = """
extern void bpf_function_of_nobody(int x) __ksym __weak;
SEC("tc") int prog(struct __sk_buff *skb) { GUARD bpf_function_of_nobody(skb->len); return 0; }
"""
GUARD = {"GUARD": "if (&bpf_function_of_nobody)"}
PACKET = """
KIND __attribute__((noinline)) int parse(void *data, void *end)
{
    struct ethhdr *eth = data;
    return (void *)(eth + 1) > end ? 0 : eth->h_proto;
}
SEC("tc") int prog(struct __sk_buff *skb)
{
    return parse((void *)(long)skb->data, (void *)(long)skb->data_end) & 1;
}
"""
PAIR = """
struct pair { int a, b; };
KIND __attribute__((noinline)) int sum(struct pair *p) { CHECK return p->a + p->b; }
SEC("tc") int prog(struct __sk_buff *skb) { struct pair p = {skb->len, 2}; return sum(&p) & 1; }
"""
TEXT = """
KIND __attribute__((noinline)) int length(TYPE)
{
    int n = 0;
    for (int i = 0; text && i < 16; i++)
        n += !!CHAR;
    return n;
}
SEC("tc") int prog(struct __sk_buff *skb) { char text[16] = "x"; return length(PASSED) & 1; }
"""
POINTER = """
KIND __attribute__((noinline)) void *get(struct __sk_buff *skb) { return (void *)(long)skb->len; }
SEC("tc") int prog(struct __sk_buff *skb) { return get(skb) != 0; }
"""
STATIC = {"KIND": "static"}
ITERATOR = """
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
SEC("tc") int prog(struct __sk_buff *skb)
{
    struct bpf_iter_num it;
    int *v, sum = 0;
    bpf_iter_num_new(&it, 0, 10);
    while ((v = bpf_iter_num_next(&it)))
        sum += *v;
    END
    return sum & 1;
}
"""
REGION = """
void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;
SEC("tc") int prog(struct __sk_buff *skb) { bpf_rcu_read_lock(); END return 0; }
"""
LICENCE = """
#define tcp_congestion_ops kernels_own
#include "vmlinux.h"
#undef tcp_congestion_ops
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "MIT";
SEC("struct_ops/ssthresh") __u32 BPF_PROG(ssthresh, struct sock *sk) { return 2; }
SEC("struct_ops/undo_cwnd") __u32 BPF_PROG(undo, struct sock *sk) { return 2; }
SEC("struct_ops/cong_avoid") void BPF_PROG(avoid, struct sock *sk, __u32 a, __u32 b) {}
struct tcp_congestion_ops {
    __u32 (*ssthresh)(struct sock *), (*undo_cwnd)(struct sock *);
    void (*cong_avoid)(struct sock *, __u32, __u32);
    char name[16];
};
SEC(".struct_ops") struct tcp_congestion_ops mine = {
    .ssthresh = (void *)ssthresh, .undo_cwnd = (void *)undo, .cong_avoid = (void *)avoid, .name = "mine"};
"""


@pytest.mark.parametrize(
    ("code", "bad", "good", "why"),
    [
        pytest.param(
            KEY,
            {"WIDTH": "__u32"},
            {"WIDTH": "__u64"},
            r"the helper needs 8 bytes there, but the variable has at most 4\n"
            r"(.*\n)*.*of the map's key",
            id="key",
        ),
        pytest.param(
            STORED,
            {"SIZE": "16"},
            {"SIZE": "sizeof(start)"},
            r"the helper needs 16 bytes there, but the variable has at most 8\n"
            r"(.*\n)*.*sizeof\(variable\)",
            id="size",
        ),
        pytest.param(
            LENGTH,
            {"WIDTH": "__u32", "BOUND": "if (length > sizeof(text)) return 0;"},
            {
                "WIDTH": "__s64",
                "BOUND": "if (length > 64) return 0; barrier_var(length); if (length < 1) return 0;",
            },
            r"the length may be 0, negative, or larger(.*\n)*.*barrier_var\(len\)",
            id="length",
        ),
        *(
            pytest.param(
                code,
                {"GUARD": ""},
                GUARD,
                r"the call is not guarded, and Linux .* has no bpf_function_of_nobody",
                id=name,
            )
            for name, code in {"weak": WEAK, "returned": WEAK_RETURNED, "void": WEAK_VOID}.items()
        ),
        pytest.param(PACKET, {"KIND": ""}, STATIC, r"global function(.*\n)*.*declare it static", id="packet"),
        pytest.param(
            PAIR,
            {"KIND": "", "CHECK": ""},
            STATIC | {"CHECK": ""},
            r"global function(.*\n)*.*declare it static",
            id="pair",
        ),
        pytest.param(
            TEXT,
            {"KIND": "", "TYPE": "char *text", "CHAR": "text[i]", "PASSED": "text"},
            STATIC | {"TYPE": "char *text", "CHAR": "text[i]", "PASSED": "text"},
            r"global function(.*\n)*.*declare it static",
            id="text",
        ),
        pytest.param(
            POINTER, {"KIND": ""}, STATIC, r"may return only a number(.*\n)*.*declare it static", id="pointer"
        ),
        pytest.param(
            ITERATOR,
            {"END": ""},
            {"END": "bpf_iter_num_destroy(&it);"},
            r"bpf_iter_num_new\(\) is not released(.*\n)*.*call bpf_iter_num_destroy\(\)",
            id="iterator",
            marks=pytest.mark.bpf_requires("bpf_iter_num_new"),
        ),
        pytest.param(
            REGION,
            {"END": ""},
            {"END": "bpf_rcu_read_unlock();"},
            r"leaves the region of bpf_rcu_read_lock\(\)(.*\n)*.*call bpf_rcu_read_unlock\(\)",
            id="region",
            marks=pytest.mark.bpf_requires("bpf_rcu_read_lock"),
        ),
    ],
)
def test_what_is_said_helps(bpf, code, bad, good, why):
    with pytest.raises(LoadError, match=why):
        bpf.load(code=HEAD + replaced(code, bad))
    bpf.load(code=HEAD + replaced(code, good))


def test_the_kinds_that_a_global_function_takes(bpf, bpf_kernel):
    """The other remedies are a check of the pointer, and a pointer to the whole array."""
    if not bpf_kernel.has("bpf_snprintf"):
        pytest.skip("this kernel's global functions take no pointers to memory: use Linux 5.13 or later")
    bpf.load(code=HEAD + replaced(PAIR, {"KIND": "", "CHECK": "if (!p) return 0;"}))
    whole = {"KIND": "", "TYPE": "char (*text)[16]", "CHAR": "(*text)[i]", "PASSED": "&text"}
    bpf.load(code=HEAD + replaced(TEXT, whole))


@pytest.mark.bpf_requires("struct_ops")
def test_programs_that_have_to_be_under_the_gpl(bpf):
    with pytest.raises(VerifierError, match="programs of this type have to be under the GPL"):
        bpf.load(code=LICENCE)
    bpf.load(code=LICENCE.replace("MIT", "GPL"))


READ = """
SEC("SECTION") int BPF_PROG(prog) { char text[8]; CALL return 0; }
"""
COPY = "bpf_copy_from_user(text, 8, (void *)1);"


@pytest.mark.bpf_requires("lsm", "bpf_copy_from_user")
@pytest.mark.parametrize(
    ("bad", "good", "why"),
    [
        pytest.param(
            {"SECTION": "lsm/bprm_committed_creds", "CALL": COPY},
            {"SECTION": "lsm.s/bprm_committed_creds", "CALL": COPY},
            r"a function that may sleep, but is not sleepable itself(.*\n)*.*make the program sleepable",
            id="calls",
        ),
        pytest.param(
            {"SECTION": "lsm.s/task_free", "CALL": ""},
            {"SECTION": "lsm/task_free", "CALL": ""},
            'called where nothing may sleep(.*\n)*.*remove the "\\.s" from its section',
            id="hook",
        ),
        pytest.param(
            {"SECTION": "fentry.s/vfs_read", "CALL": ""},
            {"SECTION": "fentry/vfs_read", "CALL": ""},
            'called where nothing may sleep(.*\n)*.*remove the "\\.s" from its section',
            id="function",
        ),
    ],
)
def test_what_may_sleep(bpf, bad, good, why):
    with pytest.raises(LoadError, match=why):
        bpf.load(code=HEAD + replaced(READ, bad))
    bpf.load(code=HEAD + replaced(READ, good))


STACKS = """
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(max_entries, 4); __uint(key_size, 4);
         __uint(value_size, 80); } stacks SEC(".maps");
SEC("SECTION/bprm_committed_creds") int prog(void *ctx) { bpf_get_stackid(ctx, &stacks, 0); return 0; }
"""


@pytest.mark.bpf_requires("lsm")
def test_a_map_that_is_not_for_sleepable_programs(bpf):
    with pytest.raises(LoadError, match="sleepable program may not use maps of this type"):
        bpf.load(code=HEAD + STACKS.replace("SECTION", "lsm.s"))
    bpf.load(code=HEAD + STACKS.replace("SECTION", "lsm"))


IN_REGION = """
void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;
SEC("lsm.s/bprm_committed_creds") int prog(void *ctx)
{
    char text[8];
    bpf_rcu_read_lock(); FIRST
    bpf_copy_from_user(text, 8, (void *)1);
    THEN bpf_rcu_read_unlock();
    return 0;
}
"""


@pytest.mark.bpf_requires("lsm", "bpf_rcu_read_lock")
def test_a_call_that_sleeps_in_a_region(bpf):
    with pytest.raises(LoadError, match=r"is made where nothing may sleep(.*\n)*.*end the region before"):
        bpf.load(code=HEAD + replaced(IN_REGION, {"FIRST": "", "THEN": ""}))
    good = {"FIRST": "bpf_rcu_read_unlock();", "THEN": "bpf_rcu_read_lock();"}
    bpf.load(code=HEAD + replaced(IN_REGION, good))


RAW = 'SEC("raw_tp/task_newtask") int prog(__u64 *args) { return args[INDEX] == 0; }'


@pytest.mark.bpf_requires("raw_tp/task_newtask")
def test_the_end_of_a_raw_tracepoints_arguments(bpf):
    with pytest.raises(AttachError, match="reads beyond the 2 arguments of task_newtask"):
        bpf.load(code=HEAD + RAW.replace("INDEX", "2")).attach()
    bpf.load(code=HEAD + RAW.replace("INDEX", "1")).attach()


def test_a_guarded_call_that_kernels_before_5_16_refuse(bpf):
    path = bpf.compile(code=HEAD + WEAK.replace("GUARD", GUARD["GUARD"]))
    found = absent_weak(parse_log("kernel btf_id 0 is not a function\n"), path)
    assert "has no bpf_function_of_nobody, and before Linux 5.16 it refuses even a guarded call" in found.why
    assert found.fix.endswith("bpf_requires(kfunc='bpf_function_of_nobody')")
