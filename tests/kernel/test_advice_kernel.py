"""Tests wrong uses of the kernel's functions: each program loads after the message's remedy."""

import pytest

from pytest_bpfmaps import LoadError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
"""


def refusal(bpf, code, **options):
    """Returns the message of a load; "" when the kernel accepts the program."""
    try:
        bpf.load(code=HEAD + code, **options)
    except LoadError as e:
        return str(e)
    return ""


LOADED = "SECTION int BPF_PROG(prog, bool preempt, struct task_struct *from, struct task_struct *to) { BODY }"


@pytest.mark.bpf_requires("tp_btf/sched_switch")
@pytest.mark.parametrize(
    ("bad", "good", "why"),
    [
        pytest.param(
            "from->pid = 3; return 0;",
            "struct task_struct *t = from; int pid = t->pid; return pid & 0;",
            r"writes to a struct of the kernel(.*\n)*.*a copy can be changed freely",
            id="write",
        ),
        pytest.param(
            "return *(volatile int *)((char *)from + 100000) & 0;",
            "return *(volatile int *)&from->pid & 0;",
            r"in a size, that none of its fields has(.*\n)*.*read its fields",
            id="no-field",
        ),
    ],
)
def test_structs_of_the_kernel(bpf, bad, good, why):
    code = HEAD + LOADED.replace("SECTION", 'SEC("tp_btf/sched_switch")')
    with pytest.raises(LoadError, match=why):
        bpf.load(code=code.replace("BODY", bad))
    bpf.load(code=code.replace("BODY", good))


SYMBOL = """
extern const int bpf_prog_active __ksym;
SEC("raw_tp/sched_switch") int prog(void *ctx)
{
    int copy, *active = (int *)bpf_this_cpu_ptr(&bpf_prog_active);
    copy = *active;
    CHANGED = 1;
    return copy & 0;
}
"""


@pytest.mark.bpf_requires("raw_tp/sched_switch")
def test_a_variable_of_the_kernel(bpf, bpf_kernel):
    if said := refusal(bpf, SYMBOL.replace("CHANGED", "copy")):
        refusals = "has no symbol bpf_prog_active", "CONFIG_KALLSYMS_ALL is off", "do not say which type"
        assert any(each in said for each in refusals)
        pytest.skip("this kernel does not show its variables: use Linux 6.1, pytest --bpf-kernel=6.1")
    with pytest.raises(LoadError, match=r"memory that is read-only for it(.*\n)*.*change a copy"):
        bpf.load(code=HEAD + SYMBOL.replace("CHANGED", "*active"))


@pytest.mark.bpf_requires("raw_tp/sched_switch")
def test_a_type_of_program_that_may_not_sleep(bpf):
    code = 'SEC("raw_tp/sched_switch") int prog(void *ctx) { return 0; }'
    said = refusal(bpf, code, programs={"prog": {"flags": 16}})  # BPF_F_SLEEPABLE
    assert not said or "programs of this type can't be sleepable" in said
    bpf.load(code=HEAD + code)


STORED = """
struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int);
    __type(value, __u64);
} kept SEC(".maps");
SEC("fentry/do_unlinkat") int prog(void *ctx)
{
    struct task_struct *task = (void *)GET();
    return bpf_task_storage_get(&kept, task, 0, 1) != 0 && 0;
}
"""


@pytest.mark.bpf_requires("task_storage", "fentry/do_unlinkat")
def test_a_pointer_that_the_verifier_knows(bpf):
    with pytest.raises(LoadError, match=r"gets an address|gets a number|wrong kind") as error:
        bpf.load(code=HEAD + STORED.replace("GET", "bpf_get_current_task"))
    assert "bpf_get_current_task_btf()" in error.value.fix
    bpf.load(code=HEAD + STORED.replace("GET", "bpf_get_current_task_btf"))


PROTOTYPE = """
struct task_struct *bpf_task_from_pid(PARAMETERS) __ksym;
void bpf_task_release(struct task_struct *p) __ksym;
SEC("tp_btf/task_newtask") int prog(void *ctx)
{
    struct task_struct *t = bpf_task_from_pid(GIVEN);
    if (t) bpf_task_release(t);
    return 0;
}
"""


@pytest.mark.bpf_requires("bpf_task_from_pid", "tp_btf/task_newtask")
def test_a_function_of_the_kernel_that_is_declared_otherwise(bpf):
    code = HEAD.replace('#include "vmlinux.h"', '#define BPF_NO_KFUNC_PROTOTYPES\n#include "vmlinux.h"')
    bad = PROTOTYPE.replace("PARAMETERS", "s32 pid, int more").replace("GIVEN", "1, 2")
    with pytest.raises(
        LoadError, match=r"declares bpf_task_from_pid with other parameters(.*\n)*.*bpftool btf"
    ):
        bpf.load(code=code + bad)
    bpf.load(code=code + PROTOTYPE.replace("PARAMETERS", "s32 pid").replace("GIVEN", "1"))


ATOMIC = '__u64 n; SEC("xdp") int prog(struct xdp_md *ctx) { DO; return 2; }'


def test_an_atomic_operation_with_a_result(bpf):
    said = refusal(bpf, ATOMIC.replace("DO", "return __sync_fetch_and_add(&n, 1) & 1"))
    assert not said or "only atomic operation is an addition without a result" in said
    bpf.load(code=HEAD + ATOMIC.replace("DO", "__atomic_fetch_add(&n, 1, __ATOMIC_RELAXED)"))
    bpf.load(code=HEAD + ATOMIC.replace("DO", "__sync_fetch_and_add(&n, 1)"), cflags=["-mcpu=v2"])


LONG = """
struct long_key { char text[SIZE]; };
struct {
    __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8);
    __type(key, struct long_key); __type(value, __u64);
} by_text SEC(".maps");
"""


def test_a_long_key(bpf):
    said = refusal(bpf, LONG.replace("SIZE", "600"))
    assert not said or "its keys have 600 bytes, but this kernel allows at most 512" in said
    bpf.load(code=HEAD + LONG.replace("SIZE", "512"))


NOT_ALLOWED = """
extern __u32 tcp_reno_ssthresh(struct sock *sk) __ksym;
void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;
SEC("tc") int prog(struct __sk_buff *skb) { CALL return 0; }
"""


@pytest.mark.bpf_requires("bpf_rcu_read_lock")
def test_a_kernel_function_that_this_type_of_program_may_not_call(bpf):
    """The kfunc is registered for TCP's congestion control."""
    with pytest.raises(LoadError, match=r"may not call tcp_reno_ssthresh(?s:.*)-> .* struct_ops"):
        bpf.load(code=HEAD + NOT_ALLOWED.replace("CALL", "tcp_reno_ssthresh((void *)skb);"))
    bpf.load(code=HEAD + NOT_ALLOWED.replace("CALL", "bpf_rcu_read_lock(); bpf_rcu_read_unlock();"))
