"""Tests refusals about kptrs, iterators, slices of packets, regions and kernel functions of newer kernels.

Each program loads after the message's remedy.
"""

import pytest

from pytest_bpfmaps import BpfError

UAPI = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
TYPES = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_tracing.h>\n'
CORE = "#include <bpf/bpf_core_read.h>\n"
GPL = '\nchar LICENSE[] SEC("license") = "GPL";\n'
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { %s }'
TC = 'SEC("tc") int prog(struct __sk_buff *ctx) { %s }'
TASK = 'SEC("tp_btf/task_newtask") int BPF_PROG(prog, struct task_struct *task, __u64 flags) { %s }'
SLEEPS = 'SEC("fentry.s/__x64_sys_getpgid") int prog(void *ctx) { %s }'
JUMP = (
    "struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __type(key, __u32);"
    ' __type(value, __u32); } jumps SEC(".maps");'
    "static __noinline %s jump(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 1); %s }"
    + XDP
    % "jump(ctx); return 2;"
)
TIMED = (
    "struct timed { struct bpf_timer timer; };"
    "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);"
    ' __type(value, struct timed); } timers SEC(".maps");'
    + TC % "%s return 0;"
)  # fmt: skip
ACQUIRES = (
    "struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;"
    "void bpf_task_release(struct task_struct *p) __ksym;"
    "struct kept { struct task_struct __kptr *task; };"
    "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);"
    ' __type(value, struct kept); } tasks SEC(".maps");'
    + TASK
    % "__u32 i = 0; struct kept *value = bpf_map_lookup_elem(&tasks, &i); if (!value) return 0;"
    " struct task_struct *old, *new = bpf_task_acquire(task); if (!new) return 0; %s return 0;"
)
NUMBERS = (
    "extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;"
    "extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;"
    "extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;"
)
IN_TASKS = (
    "void bpf_rcu_read_lock(void) __ksym; void bpf_rcu_read_unlock(void) __ksym;"
    "int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *t, unsigned int flags) __ksym;"
    "struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym;"
    "void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym;"
    + SLEEPS
    % "struct bpf_iter_task it; %s bpf_iter_task_new(&it, 0, 0); bpf_iter_task_next(&it);"
    " bpf_iter_task_destroy(&it); %s return 0;"
)
SLICE = (
    "int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *p) __ksym;"
    "void *bpf_dynptr_slice(const struct bpf_dynptr *p, __u32 at, void *buffer, __u32 buffer__szk) __ksym;"
    + TC
    % "struct bpf_dynptr p; %s buffer; bpf_dynptr_from_skb(ctx, 0, &p);"
    " struct ethhdr *eth = bpf_dynptr_slice(&p, 0, &buffer, sizeof(*eth)); return eth ? eth->h_proto : 0;"
)
LISTS = (
    '#define contains(type, field) __attribute__((btf_decl_tag("contains:" #type ":" #field)))\n'
    '#define private(name) SEC(".bss." #name) __hidden __attribute__((aligned(8)))\n'
    "extern void *bpf_obj_new_impl(__u64 id, void *meta) __ksym;"
    "extern void bpf_obj_drop_impl(void *object, void *meta) __ksym;"
    "extern int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta,"
    " __u64 at) __ksym;"
    "struct item { struct bpf_list_node list; long number; };"
    "private(A) struct bpf_spin_lock lock; private(A) struct bpf_list_head items %s;"
    + TC
    % "struct item *item = bpf_obj_new_impl(bpf_core_type_id_local(struct item), 0); if (!item) return 0;"
    " %s return 0;"
)
LISTED, PUSH = "contains(item, list)", "bpf_list_push_front_impl(&items, (void *)&item->%s, 0, 0);"
LOCKED = "bpf_spin_lock(&lock); " + PUSH + " bpf_spin_unlock(&lock); %s"
VALUE = (
    "struct val { %s special; int n; };"
    "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);"
    ' __type(value, struct val); } m SEC(".maps"), m2 SEC(".maps");'
    + TC
    % "__u32 k = 0; struct val *v = bpf_map_lookup_elem(&m, &k); if (!v) return 0; %s return 0;"
)
WORKS = "extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym;"
WORKS += VALUE.replace("%s", "struct bpf_wq", 1)
RESILIENT = (
    "extern int bpf_res_spin_lock(struct bpf_res_spin_lock *lock) __ksym;"
    "extern void bpf_res_spin_unlock(struct bpf_res_spin_lock *lock) __ksym;"
    + VALUE.replace("%s", "struct bpf_res_spin_lock", 1)
)
SAVES = (
    "extern void bpf_local_irq_save(unsigned long *flags) __ksym;"
    "extern void bpf_local_irq_restore(unsigned long *flags) __ksym; unsigned long kept;"
    + TC
    % "unsigned long a, b; %s return 0;"
)
CPUS = (
    "extern struct bpf_cpumask *bpf_cpumask_create(void) __ksym;"
    "extern void bpf_cpumask_release(struct bpf_cpumask *mask) __ksym;"
    "extern void bpf_cpumask_set_cpu(__u32 cpu, struct bpf_cpumask *mask) __ksym;" + TASK % "%s return 0;"
)
GROUPS = (
    "extern struct cgroup *bpf_cgroup_from_id(__u64 id) __ksym;"
    "extern void bpf_cgroup_release(struct cgroup *group) __ksym;"
    "extern struct cgroup *bpf_cgroup_ancestor(struct cgroup *group, int level) __ksym;"
    + TASK
    % "struct cgroup *group = bpf_cgroup_from_id(1), *above; if (!group) return 0;"
    " above = bpf_cgroup_ancestor(group, 0); bpf_cgroup_release(group); %s return 0;"
)
PARENT = (
    "void bpf_rcu_read_lock(void) __ksym; void bpf_rcu_read_unlock(void) __ksym;"
    "struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;"
    "void bpf_task_release(struct task_struct *p) __ksym;"
    + SLEEPS
    % "struct task_struct *task = bpf_get_current_task_btf(), *above; %s above ="
    " bpf_task_acquire(task->real_parent); if (above) bpf_task_release(above); %s return 0;"
)
CASTS = "extern void *bpf_rdonly_cast(const void *p, __u32 type) __ksym;"
CASTS += TC % "%s = bpf_rdonly_cast((void *)(long)ctx->mark, %s); return p->%s;"
TO_KERNELS = "extern void *bpf_cast_to_kern_ctx(void *p) __ksym;"
TO_KERNELS += TC % "int x = 0; struct sk_buff *skb = bpf_cast_to_kern_ctx(%s); return skb->len;"
RECORDS = (
    'struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } records SEC(".maps");'
    "struct bpf_dynptr kept;" + TC % "struct bpf_dynptr ptr; bpf_ringbuf_reserve_dynptr(&records, 8, 0, &%s);"
    " bpf_ringbuf_submit_dynptr(&%s, 0); return 0;"
)
COPY = "struct __sk_buff copy = *ctx; return ((volatile struct __sk_buff *)&copy)->mark;"

# the mistake; why and what to do, as the message says; the program after that was done; what it needs
CASES = {
    "a tail call of a function without a result": (
        UAPI + JUMP % ("void", ""), "has to return an int", "declare it to return int",
        UAPI + JUMP % ("int", "return 0;"),
        "xdp",
    ),
    "a timer on the stack": (
        UAPI + TIMED % "struct bpf_timer t = {}; bpf_timer_init(&t, &timers, 1);",
        "has to be in the value of a map", r"give its address: &value->FIELD",
        UAPI + TIMED % "__u32 k = 0; struct timed *value = bpf_map_lookup_elem(&timers, &k);"
        " if (value) bpf_timer_init(&value->timer, &timers, 1);",
        "bpf_timer_init",
    ),
    "a copy of the whole context": (
        TYPES + TC % COPY, "copies its whole context", "__u32 mark = ctx->mark;",
        TYPES + TC % "__u32 mark = ctx->mark; return mark;",
        "sched_cls",
    ),
    "an assignment to a kptr": (
        TYPES + ACQUIRES % "value->task = new;", "an assignment can't replace it", "bpf_kptr_xchg",
        TYPES + ACQUIRES % "old = bpf_kptr_xchg(&value->task, new); if (old) bpf_task_release(old);",
        "bpf_task_acquire", "tp_btf/task_newtask",
    ),
    "an iterator that is not begun": (
        TYPES + NUMBERS + XDP % "struct bpf_iter_num it = {}; return bpf_iter_num_next(&it) ? 1 : 2;",
        "the iterator is not begun there", r"_new\(&it, …\)",
        TYPES + NUMBERS + XDP % "struct bpf_iter_num it; bpf_iter_num_new(&it, 0, 3);"
        " int more = !!bpf_iter_num_next(&it); bpf_iter_num_destroy(&it); return more ? 1 : 2;",
        "bpf_iter_num_new",
    ),
    "an iterator that is begun twice": (
        TYPES + NUMBERS + XDP % "struct bpf_iter_num it; bpf_iter_num_new(&it, 0, 3);"
        " bpf_iter_num_new(&it, 0, 3); bpf_iter_num_destroy(&it); return 2;",
        "was begun before", r"_destroy\(&it\) before its …_new",
        TYPES + NUMBERS + XDP % "struct bpf_iter_num it; bpf_iter_num_new(&it, 0, 3);"
        " bpf_iter_num_destroy(&it); bpf_iter_num_new(&it, 0, 3); bpf_iter_num_destroy(&it); return 2;",
        "bpf_iter_num_new",
    ),
    "tasks outside of a region": (
        TYPES + IN_TASKS % ("", ""), "only in a region of bpf_rcu_read_lock", "call bpf_rcu_read_lock",
        TYPES + IN_TASKS % ("bpf_rcu_read_lock();", "bpf_rcu_read_unlock();"),
        "bpf_iter_task_new", "fentry/__x64_sys_getpgid",
    ),
    "a buffer that is smaller than a slice": (
        TYPES + SLICE % "__u64", "less bytes than the length", "as large as what is read",
        TYPES + SLICE % "struct ethhdr",
        "bpf_dynptr_slice",
    ),
    "a list that is changed without its lock": (
        TYPES + CORE + LISTS % (LISTED, PUSH % "list"), "only while the bpf_spin_lock", "before the call",
        TYPES + CORE + LISTS % (LISTED, LOCKED % ("list", "")),
        "bpf_list_push_front_impl",
    ),
    "another field than the node of a list": (
        TYPES + CORE + LISTS % (LISTED, LOCKED % ("number", "")), "address of the node", "&object->NODE",
        TYPES + CORE + LISTS % (LISTED, LOCKED % ("list", "")),
        "bpf_list_push_front_impl",
    ),
    "a list that does not say what it contains": (
        TYPES + CORE + LISTS % ("", LOCKED % ("list", "")), "no such special field", "needs __contains",
        TYPES + CORE + LISTS % (LISTED, LOCKED % ("list", "")),
        "bpf_list_push_front_impl",
    ),
    "an object after it was put into a list": (
        TYPES + CORE + LISTS % (LISTED, LOCKED % ("list", "bpf_obj_drop_impl(item, 0);")),
        "belongs to a list or tree", "use it before that",
        TYPES + CORE + LISTS % (LISTED, LOCKED % ("list", "")),
        "bpf_list_push_front_impl",
    ),
    "another map's work queue": (
        TYPES + WORKS % "bpf_wq_init(&v->special, &m2, 0);", "gets another map", "value has the work queue",
        TYPES + WORKS % "bpf_wq_init(&v->special, &m, 0);",
        "bpf_wq_init",
    ),
    "a work queue on the stack": (
        TYPES + WORKS % "struct bpf_wq wq = {}; bpf_wq_init(&wq, &m, 0);", "in the value of a map",
        "&value->FIELD", TYPES + WORKS % "bpf_wq_init(&v->special, &m, 0);",
        "bpf_wq_init",
    ),
    "a lock that may not have been taken": (
        TYPES + RESILIENT % "bpf_res_spin_lock(&v->special); v->n++; bpf_res_spin_unlock(&v->special);",
        "can fail", r"if \(bpf_res_spin_lock\(&value->lock\)\) return 0;",
        TYPES + RESILIENT % "if (bpf_res_spin_lock(&v->special)) return 0; bpf_res_spin_unlock(&v->special);",
        "bpf_res_spin_lock",
    ),
    "a lock of that kind that is kept": (
        TYPES + RESILIENT % "if (bpf_res_spin_lock(&v->special)) return 0; v->n++;",
        r"without bpf_res_spin_unlock\(\)", "call bpf_res_spin_unlock",
        TYPES + RESILIENT % "if (bpf_res_spin_lock(&v->special)) return 0; bpf_res_spin_unlock(&v->special);",
        "bpf_res_spin_lock",
    ),
    "regions that overlap": (
        TYPES + SAVES % "bpf_local_irq_save(&a); bpf_local_irq_save(&b); bpf_local_irq_restore(&a);"
        " bpf_local_irq_restore(&b);",
        "begun last has to end first", "reverse order",
        TYPES + SAVES % "bpf_local_irq_save(&a); bpf_local_irq_save(&b); bpf_local_irq_restore(&b);"
        " bpf_local_irq_restore(&a);",
        "bpf_local_irq_save",
    ),
    "an end without a beginning": (
        TYPES + SAVES % "a = 0; bpf_local_irq_restore(&a);", "has not set on that path",
        r"call bpf_local_irq_save\(&flags\)",
        TYPES + SAVES % "bpf_local_irq_save(&a); bpf_local_irq_restore(&a);",
        "bpf_local_irq_save",
    ),
    "a region whose state is a global variable": (
        TYPES + SAVES % "bpf_local_irq_save(&kept); bpf_local_irq_restore(&kept);", "kept on the stack",
        "declare it in the function",
        TYPES + SAVES % "bpf_local_irq_save(&a); bpf_local_irq_restore(&a);",
        "bpf_local_irq_save",
    ),
    "another struct": (
        TYPES + CPUS % "bpf_cpumask_set_cpu(0, (void *)task->cpus_ptr);", "an object of another type",
        r"bpf_cpumask_create\(\)",
        TYPES + CPUS % "struct bpf_cpumask *mask = bpf_cpumask_create(); if (!mask) return 0;"
        " bpf_cpumask_set_cpu(0, mask); bpf_cpumask_release(mask);",
        "bpf_cpumask_create", "tp_btf/task_newtask",
    ),
    "a cgroup that is kept": (
        TYPES + GROUPS % "if (above) group = 0;", r"result of bpf_cgroup_ancestor\(\) is not released",
        r"call bpf_cgroup_release\(\)", TYPES + GROUPS % "if (above) bpf_cgroup_release(above);",
        "bpf_cgroup_from_id", "bpf_cgroup_ancestor", "tp_btf/task_newtask",
    ),
    "a field in a program that sleeps": (
        TYPES + PARENT % ("", ""), r"only in a region of bpf_rcu_read_lock\(\)", "read the field and call",
        TYPES + PARENT % ("bpf_rcu_read_lock();", "bpf_rcu_read_unlock();"),
        "bpf_rcu_read_lock", "bpf_task_acquire", "fentry/__x64_sys_getpgid",
    ),
    "a cast to a number": (
        TYPES + CORE + CASTS % ("struct { int n; } *p", "bpf_core_type_id_kernel(int)", "n"),
        "to a struct or to void only", r"bpf_core_type_id_kernel\(struct …\)",
        TYPES + CORE + CASTS % ("struct sk_buff *p", "bpf_core_type_id_kernel(struct sk_buff)", "len"),
        "bpf_rdonly_cast",
    ),
    "a cast of what is no context": (
        TYPES + TO_KERNELS % "&x", "has to be the program's own context", "the parameter of the program",
        TYPES + TO_KERNELS % "ctx",
        "bpf_cast_to_kern_ctx",
    ),
    "a dynptr that is a global variable": (
        TYPES + RECORDS % ("kept", "kept"), "a dynptr on the stack", "declare it in the function",
        TYPES + RECORDS % ("ptr", "ptr"),
        "bpf_ringbuf_reserve_dynptr",
    ),
    "a function that takes a struct": (
        TYPES + 'SEC("fentry/fdget") int prog(void *ctx) { return 0; }',
        "a struct as such|no function 'fdget'", r'SEC\("kprobe/…"\)|did you mean',
        TYPES + 'SEC("kprobe/fdget") int prog(void *ctx) { return 0; }',
        "kprobe", "fentry",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.bpf_requires(*case[4:])) for name, case in CASES.items()]
)
def test_what_is_said_helps(bpf, name):
    bad, why, fix, good, *_ = CASES[name]
    with pytest.raises(BpfError) as error:
        bpf.load(code=bad + GPL)
    assert error.match(f"(?s){why}.*-> .*{fix}")
    bpf.load(code=good + GPL)


FROM_XDP = "int bpf_dynptr_from_xdp(struct xdp_md *ctx, __u64 flags, struct bpf_dynptr *p) __ksym;"


@pytest.mark.bpf_requires("bpf_dynptr_from_xdp")
def test_a_kernel_function_of_another_type_of_program(bpf):
    code = 'SEC("%s") int prog(struct %s *ctx) { struct bpf_dynptr p; '
    code = TYPES + FROM_XDP + code + "bpf_dynptr_from_xdp((void *)ctx, 0, &p); return 2; }"
    with pytest.raises(BpfError, match="type may not call bpf_dynptr_from_xdp") as error:
        bpf.load(code=code % ("tc", "__sk_buff") + GPL)
    assert error.value.fix == "this kernel allows it in programs of type xdp"
    bpf.load(code=code % ("xdp", "xdp_md") + GPL)


def test_a_kernel_function_that_other_kernels_have(bpf, bpf_kernel):
    if bpf_kernel.has("bpf_dynptr_from_xdp"):
        pytest.skip("this kernel has bpf_dynptr_from_xdp: see it on Linux 6.1, pytest --bpf-kernel=6.1")
    code = TYPES + FROM_XDP.replace("struct bpf_dynptr", "void")
    code += XDP % "__u64 p[2]; GUARD return bpf_dynptr_from_xdp(ctx, 0, p); return 2;"
    with pytest.raises(BpfError, match=r"has no kernel function bpf_dynptr_from_xdp") as error:
        bpf.load(code=code.replace("GUARD", "") + GPL)
    assert "did you mean" not in error.value.fix
    weak = code.replace("__ksym", "__ksym __weak").replace("GUARD", "if (&bpf_dynptr_from_xdp)")
    bpf.load(code=weak + GPL)
