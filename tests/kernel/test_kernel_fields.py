"""Tests the kernel's spin locks, timers and pointers in values: they are hidden, and never written.

The kernel cancels a timer in a value that is written. It also releases a pointer; Linux 7.2 keeps it.
"""

import pytest

from pytest_bpfmaps import BPF_F_LOCK, MapError, MapTypeError, MapValueError

LOCKED = """
struct value {{
    __u64 before;
    struct bpf_spin_lock lock;
    __u64 after;
}};
struct {{
    __uint(type, BPF_MAP_TYPE_{type});
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct value);
}} the_map SEC(".maps");

SEC("tc")
int add(struct __sk_buff *skb)
{{
    __u32 key = 0;
    struct value *v = bpf_map_lookup_elem(&the_map, &key);
    if (!v)
        return 1;
    bpf_spin_lock(&v->lock);
    v->before++;
    v->after++;
    bpf_spin_unlock(&v->lock);
    return 0;
}}
"""


@pytest.mark.bpf_requires("sched_cls")
@pytest.mark.parametrize("type", ["HASH", "ARRAY"])
def test_a_spin_lock(load_code, type):
    obj = load_code(LOCKED.format(type=type))
    m, add = obj.maps.the_map, obj.programs.add
    m[0] = {"before": 1, "after": 2}
    assert add.run(bytes(64)).retval == 0
    assert m[0] == {"before": 2, "after": 3}
    assert list(m[0]._asdict()) == ["before", "after"]
    m.update_elem(0, (10, 20), BPF_F_LOCK)
    assert m.lookup_elem(0, BPF_F_LOCK) == (10, 20)
    assert add.run(bytes(64)).retval == 0  # the lock is free
    assert m.lookup_elem(0, BPF_F_LOCK) == {"before": 11, "after": 21}
    with pytest.raises(MapValueError, match="the kernel keeps this field for itself"):
        m[0] = {"before": 1, "lock": 1}
    with pytest.raises(MapTypeError, match=r"it has 2 fields"):
        m[0] = (1, 0, 2)


@pytest.mark.bpf_requires("sched_cls")
def test_batches_under_the_lock(load_code):
    obj = load_code(LOCKED.format(type="ARRAY"))
    m = obj.maps.the_map
    m.update_batch({0: (1, 2)}, BPF_F_LOCK)
    assert m == {0: (1, 2)}
    assert m.lookup_batch() == [(0, {"before": 1, "after": 2})]


def test_a_map_without_a_lock_refuses_the_flag(make_map):
    m = make_map("array")
    with pytest.raises(MapError, match="EINVAL"):
        m.update_elem(0, 1, BPF_F_LOCK)
    with pytest.raises(MapError, match="EINVAL"):
        m.lookup_elem(0, BPF_F_LOCK)


TIMED = """
struct value {
    __u64 ticks;
    struct bpf_timer timer;
    __u64 label;
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct value);
} the_map SEC(".maps");

static int tick(void *map, int *key, struct value *v)
{
    v->ticks++;
    bpf_timer_start(&v->timer, 1000000, 0); // again in 1 ms
    return 0;
}

SEC("tc")
int start(struct __sk_buff *skb)
{
    __u32 key = 0;
    struct value *v = bpf_map_lookup_elem(&the_map, &key);
    if (!v)
        return 1;
    if (bpf_timer_init(&v->timer, &the_map, 1 /* CLOCK_MONOTONIC */))
        return 2;
    bpf_timer_set_callback(&v->timer, tick);
    return bpf_timer_start(&v->timer, 0, 0) ? 3 : 0;
}
"""


@pytest.mark.bpf_requires("sched_cls", helper="bpf_timer_init")
def test_a_timer(load_code, bpf):
    obj = load_code(TIMED)
    m, start = obj.maps.the_map, obj.programs.start
    m[0] = {"label": 5}
    assert start.run(bytes(64)).retval == 0
    bpf.wait_until(lambda: m[0].ticks > 2, timeout=60)
    assert start.run(bytes(64)).retval == 2  # 2: the timer is already initialized
    m[0] = {"ticks": 1_000_000, "label": 6}
    assert m[0].label == 6
    assert list(m[0]._asdict()) == ["ticks", "label"]
    assert start.run(bytes(64)).retval == 0  # 0: the write cancelled the timer
    bpf.wait_until(lambda: m[0].ticks > 1_000_002, timeout=60)


KPTR = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";

struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
void bpf_task_release(struct task_struct *p) __ksym;

struct value {
    __u64 before;
    struct task_struct __attribute__((btf_type_tag("kptr"))) *task;
    __u64 after;
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct value);
} the_map SEC(".maps");

int stored, seen;

SEC("tc")
int use(struct __sk_buff *skb)
{
    __u32 key = 0;
    struct value *v = bpf_map_lookup_elem(&the_map, &key);
    struct task_struct *task;

    if (!v)
        return 1;
    task = bpf_kptr_xchg(&v->task, 0);
    if (task) {
        seen = task->pid;
    } else {
        task = bpf_task_acquire(bpf_get_current_task_btf());
        if (!task)
            return 2;
        stored++;
    }
    task = bpf_kptr_xchg(&v->task, task);
    if (task)
        bpf_task_release(task);
    return 0;
}
"""


# clang 14 knows the attribute btf_type_tag and leaves it out of a member's BTF
@pytest.mark.bpf_requires(clang="__clang_major__ >= 15")
@pytest.mark.bpf_requires("sched_cls", helper="bpf_kptr_xchg", kfunc="bpf_task_acquire")
def test_a_kernel_pointer(bpf):
    obj = bpf.load(code=KPTR)
    m, use = obj.maps.the_map, obj.programs.use
    for _ in range(2):
        assert use.run(bytes(64)).retval == 0
    assert obj.globals.stored == 1
    assert obj.globals.seen > 0
    m[0] = {"before": 1, "after": 2}
    assert use.run(bytes(64)).retval == 0
    assert obj.globals.stored in (1, 2)  # 1: kept; 2: released and stored again
    assert obj.globals.seen > 0
    assert m[0] == {"before": 1, "after": 2}
    assert list(m[0]._asdict()) == ["before", "after"]


LOCK_IN_LRU_HASH = """
struct value {
    __u64 before;
    struct bpf_spin_lock lock;
};
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct value);
} the_map SEC(".maps");
"""


def test_a_lock_that_is_plain_data(load_code):
    """The kernel refuses a lock in such a map. libbpf then creates the map without types."""
    m = load_code(LOCK_IN_LRU_HASH).maps.the_map
    m[0] = {"before": 1, "lock": {"val": 7}}
    assert m[0] == {"before": 1, "lock": {"val": 7}}
