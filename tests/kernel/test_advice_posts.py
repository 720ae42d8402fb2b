"""Tests refusals that people ask about in forums: each program loads after the message's remedy."""

import re

import pytest

from pytest_bpfmaps import AttachError, BpfError, LoadError
from pytest_bpfmaps.libbpf import version

UAPI = "#include <stdbool.h>\n#include <linux/bpf.h>"
HEAD = """
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
struct val { __u64 n[4]; char text[224]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
         __type(value, struct val); } a SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u64); } h SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u64); } h2 SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u32); } jumps SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u32); } jumps2 SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); }
    events SEC(".maps");
struct locked { struct bpf_spin_lock lock; int n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
         __type(value, struct locked); } locks SEC(".maps");
#define PACKET void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
#define VALUE __u32 k = 0; struct val *v = bpf_map_lookup_elem(&a, &k); if (!v) return 0;
"""
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { %s }'
TC = 'SEC("tc") int prog(struct __sk_buff *ctx) { %s }'
EGRESS = 'SEC("cgroup_skb/egress") int prog(struct __sk_buff *ctx) { %s }'
SWITCHED = 'SEC("tp_btf/sched_switch") int BPF_PROG(prog, bool p, void *from, struct task_struct *to) { %s }'
OPENED = (
    'SEC("tracepoint/syscalls/sys_enter_execve") int prog(struct trace_event_raw_sys_enter *ctx) { VALUE %s }'
)
TWO_TYPES = (
    'SEC("xdp") int one(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 0); return 2; }'
    'SEC("tc") int two(struct __sk_buff *ctx) { bpf_tail_call(ctx, &%s, 1); return 0; }'
)
JUMP = "static __noinline int jump(struct __sk_buff *ctx) { bpf_tail_call(ctx, &jumps, 1); return 1; }"
LARGE = "char big[300]; bpf_skb_load_bytes(ctx, 0, big, 300); %s; return big[ctx->len & 255];"
HELLO = 'char text[] = "Hello World"; long at = bpf_ktime_get_ns() & 1 ? 6 : 0;'
META = "PACKET void *meta = (void *)(long)ctx->data_meta; if (meta + 4 > %s) return 0; return *(int *)meta;"
BYTE = 'unsigned long long load_byte(void *skb, unsigned long long at) asm("llvm.bpf.load.byte");'
KEPT = EGRESS % "__u64 *n = bpf_get_local_storage(&kept, 0); *n += 1; return 1;"
SOCKETS = (
    "struct { __uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); %s }"
    ' own SEC(".maps");'
    + EGRESS
    % "struct bpf_sock *sk = ctx->sk; if (sk) bpf_sk_storage_get(&own, sk, 0, 1); return 1;"
)
PULL = "__noinline int pull(struct __sk_buff *ctx) { return bpf_skb_pull_data(ctx, 64); }"
LOCKS = (
    "__u32 i = 0, j = 1; struct locked *x = bpf_map_lookup_elem(&locks, &i), "
    "*y = bpf_map_lookup_elem(&locks, &j); if (!x || !y) return 0; bpf_spin_lock(&x->lock); %s"
)
BIG = "struct big { __u64 a, b, c; };"
DYNPTR = (
    "VALUE struct bpf_dynptr d; char copy[8] = {}; bpf_dynptr_from_mem(v, sizeof(*v), 0, &d); %s "
    "return copy[0];"
)
STORAGE = (
    "struct { __uint(type, BPF_MAP_TYPE_CGROUP_STORAGE); __type(key, struct bpf_cgroup_storage_key);"
    ' __type(value, __u64); } kept SEC(".maps");'
)
HASH = (
    "struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); %s __type(value, __u64); }"
    ' %s SEC(".maps");'
)
LOOKUP = XDP % "__u32 key = 1; return bpf_map_lookup_elem(%s, &key) ? 1 : 2;"
TASK = "struct task_struct *t = (void *)bpf_get_current_task(); return %s != 0;"
KPROBE = 'SEC("kprobe/do_unlinkat") int prog(void *ctx) { %s }'
GOTO = "static void *to[] = {&&x, &&y}; goto *to[ctx->rx_queue_index & 1]; x: return 1; y: return 2;"
SET = XDP % "return %s ? 2 : 1;"

# the mistake; why and what to do, as the message says; the program after that was done
POSTS = {
    "two types of program with one program array": (
        TWO_TYPES % "jumps", r'SEC\("tc"\) and SEC\("xdp"\) use the program array \'jumps\'',
        "a program array for each type", TWO_TYPES % "jumps2",
    ),
    "a tail call below a large stack": (
        JUMP + TC % LARGE % "jump(ctx)", "more than 256 bytes of the stack", "in the program itself",
        TC % LARGE % "bpf_tail_call(ctx, &jumps, 1)",
    ),
    "an addition that clang makes an OR": (
        TC % (HELLO + "return bpf_skb_store_bytes(ctx, 0, text + at, 4, 0);"), "an OR of an addition",
        r"barrier_var\(offset\)",
        TC % (HELLO + "barrier_var(at); return bpf_skb_store_bytes(ctx, 0, text + at, 4, 0);"),
    ),
    "a path without a return": (
        XDP % 'if (ctx->rx_queue_index == 1) return 2; bpf_printk("no"); __builtin_unreachable();',
        "(?:last path of the program|or a path) has no return", "return a number on every path",
        XDP % 'if (ctx->rx_queue_index == 1) return 2; bpf_printk("no"); return 1;',
    ),
    "a field of full sockets": (
        EGRESS % "struct bpf_sock *sk = ctx->sk; if (!sk) return 1; return sk->priority == 3;",
        "only full sockets have that field", "bpf_sk_fullsock",
        EGRESS % "struct bpf_sock *sk = ctx->sk; if (!sk) return 1;"
        " sk = bpf_sk_fullsock(sk); if (!sk) return 1; return sk->priority == 3;",
    ),
    "metadata that is compared with the packet's end": (
        TC % META % "end", "in front of the packet", r"\(void \*\)\(long\)ctx->data\)", TC % META % "data",
    ),
    "a program array that is read": (
        LOOKUP % "&jumps", "does not take a program array", r"bpf_tail_call\(\)",
        XDP % "bpf_tail_call(ctx, &jumps, 1); return 2;",
    ),
    "a perf event array that is read": (
        LOOKUP % "&events", "does not take a perf event array", "bpf_perf_event_output",
        XDP % "__u32 key = 1; return bpf_perf_event_output(ctx, &events, 0, &key, 4) ? 1 : 2;",
    ),
    "a computed goto": (XDP % GOTO, "jumps to an address in a variable", "a switch",
        XDP % "switch (ctx->rx_queue_index & 1) { case 0: return 1; } return 2;",
    ),
    "an array of variable size": (
        TC % "int n = ctx->len & 31; char copy[n + 1]; return bpf_skb_load_bytes(ctx, 0, copy, n + 1);",
        "has to be a constant", "its largest size",
        TC % "int n = ctx->len & 31; char copy[32] = {}; return bpf_skb_load_bytes(ctx, 0, copy, n + 1);",
    ),
    "a bit-field": (
        KPROBE % "return BPF_CORE_READ((struct tcp_sock *)ctx, repair);", "a bit-field has none",
        "BPF_CORE_READ_BITFIELD_PROBED",
        KPROBE % "return BPF_CORE_READ_BITFIELD_PROBED((struct tcp_sock *)ctx, repair);",
    ),
    "a large struct as an argument": (
        BIG + "static __noinline int f(struct big b) { return b.a + b.c; }"
        + TC % "struct big b = {ctx->len, 2, 3}; return f(b);",
        "more than 16 bytes", "a pointer to the struct",
        BIG + "static __noinline int f(struct big *b) { return b->a + b->c; }"
        + TC % "struct big b = {ctx->len, 2, 3}; return f(&b);",
    ),
    "an arrow in BPF_CORE_READ": (
        KPROBE % (TASK % "BPF_CORE_READ(t, mm->exe_file)"), "-> in an argument is an access",
        r"BPF_CORE_READ\(t, mm, exe_file\)", KPROBE % (TASK % "BPF_CORE_READ(t, mm, exe_file)"),
    ),
    "a letter of a task's name": (
        SWITCHED % "return to->comm[bpf_get_prandom_u32() & 15] == 3;", "at an offset that is not constant",
        "copy the array",
        SWITCHED % "char copy[16]; bpf_probe_read_kernel(copy, sizeof(copy), to->comm);"
        " return copy[bpf_get_prandom_u32() & 15] == 3;",
    ),
    "a packet that may not be changed": (
        EGRESS % "PACKET if (data + 1 > end) return 1; *(char *)data = 1; return 1;", "but not change them",
        r'SEC\("tc"\)', TC % "PACKET if (data + 1 > end) return 1; *(char *)data = 1; return 1;",
    ),
    "maps in an array": (
        XDP % "void *maps[2] = {&h, &h2}; __u32 key = 1;"
        " return bpf_map_lookup_elem(maps[ctx->rx_queue_index & 1], &key) ? 1 : 2;",
        "has to be a map", "by if or switch",
        XDP % "__u32 key = 1; if (ctx->rx_queue_index & 1) return bpf_map_lookup_elem(&h, &key) ? 1 : 2;"
        " return bpf_map_lookup_elem(&h2, &key) ? 1 : 2;",
    ),
    "an array of map declarations": (
        HASH % ("__type(key, __u32);", "many[2]") + LOOKUP % "&many[1]", "is not a map",
        "a name of their own",
        HASH % ("__type(key, __u32);", "many0") + HASH % ("__type(key, __u32);", "many1") + LOOKUP % "&many1",
    ),
    "two sizes of a key": (
        HASH % ("__uint(key_size, 8); __type(key, __u32);", "both") + LOOKUP % "&both",
        "two sizes of its key: 8 and 4 bytes", r"leave out __uint\(key_size",
        HASH % ("__type(key, __u32);", "both") + LOOKUP % "&both",
    ),
    "load_byte in XDP": (
        BYTE + XDP % "return load_byte(ctx, 12) == 8 ? 1 : 2;", "socket filters and tc only",
        "in XDP, compare",
        XDP % "PACKET if (data + 13 > end) return 2; return ((char *)data)[12] == 8 ? 1 : 2;",
    ),
    "a setting that is yes": (
        "extern int CONFIG_BPF_SYSCALL __kconfig;" + SET % "CONFIG_BPF_SYSCALL", "CONFIG_BPF_SYSCALL is y",
        "extern bool CONFIG_BPF_SYSCALL __kconfig;",
        "extern bool CONFIG_BPF_SYSCALL __kconfig;" + SET % "CONFIG_BPF_SYSCALL",
    ),
    "a setting that is a number": (
        "extern bool CONFIG_HZ __kconfig;" + SET % "CONFIG_HZ", "CONFIG_HZ is ",
        "extern int CONFIG_HZ __kconfig;",
        "extern int CONFIG_HZ __kconfig;" + SET % "CONFIG_HZ",
    ),
    "a setting that is a text": (
        "extern char CONFIG_DEFAULT_HOSTNAME __kconfig;" + SET % "CONFIG_DEFAULT_HOSTNAME", "HOSTNAME is ",
        r"extern char CONFIG_DEFAULT_HOSTNAME\[64\] __kconfig;",
        "extern char CONFIG_DEFAULT_HOSTNAME[64] __kconfig;" + SET % "CONFIG_DEFAULT_HOSTNAME[0]",
    ),
    "a length of a dynptr's data": (
        TC % DYNPTR % "char *p = bpf_dynptr_data(&d, 0, ctx->len); if (p) copy[0] = *p;",
        "only a length that is known", r"bpf_dynptr_read\(copy",
        TC % DYNPTR % "bpf_dynptr_read(copy, sizeof(copy), &d, ctx->len, 0);",
    ),
    "flags of the storage of a cgroup": (
        STORAGE + EGRESS % "__u64 *n = bpf_get_local_storage(&kept, ctx->len); *n += 1; return 1;",
        "and there are none", r"bpf_get_local_storage\(&map, 0\)",
        STORAGE + EGRESS % "__u64 *n = bpf_get_local_storage(&kept, 0); *n += 1; return 1;",
    ),
    "two locks at once": (
        TC % LOCKS % "bpf_spin_lock(&y->lock); x->n++; y->n--; bpf_spin_unlock(&y->lock);"
        " bpf_spin_unlock(&x->lock); return 0;",
        "takes a second lock", "before bpf_spin_lock",
        TC % LOCKS % "x->n++; bpf_spin_unlock(&x->lock); bpf_spin_lock(&y->lock); y->n--;"
        " bpf_spin_unlock(&y->lock); return 0;",
    ),
    "two accesses in one instruction": (
        TC % ("VALUE __u32 *p = ctx->mark > 100 ? (__u32 *)ctx : (__u32 *)v;"
        ' asm volatile("" : "+r"(p)); return *p;'),
        "joined two accesses", "in a branch of its own",
        TC % "VALUE __u32 n; if (ctx->mark > 100) { n = ctx->len; barrier_var(n); } else { n = v->n[0]; }"
        " return n;",
    ),
    "a pointer in a global variable": (
        "void *kept;"
        + TC % "PACKET kept = data; barrier(); if (kept + 1 > end) return 0; return *(char *)kept;",
        "a plain number when the program reads it again", "from ctx->data",
        "void *kept;"
        + TC % "PACKET kept = data; barrier(); if (data + 1 > end) return 0; return *(char *)data;",
    ),
    "a socket that is not the program's own": (
        EGRESS % "struct bpf_sock *sk = ctx->sk; if (sk) bpf_sk_release(sk); return 1;",
        "that it has not acquired", r"release only what an …_acquire\(\)",
        EGRESS % "struct bpf_sock *sk = ctx->sk; return sk ? 1 : 0;",
    ),
    "a format that is a variable": (
        XDP % 'const char *text = "hello"; bpf_printk(text); return 2;', "has to be a literal text",
        r'bpf_printk\("%s", text\)', XDP % 'const char *text = "hello"; bpf_printk("%s", text); return 2;',
    ),
    "a packet as an event": (
        XDP % "PACKET return bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, data, end - data);",
        "this helper may not read the packet", "appends LENGTH bytes",
        XDP % "PACKET __u32 e = 1; return bpf_perf_event_output(ctx, &events,"
        " BPF_F_CURRENT_CPU | (__u64)(end - data) << 32, &e, sizeof(e));",
    ),
    "a storage of sockets without types": (
        SOCKETS % "__uint(key_size, 4); __uint(value_size, 8);", "need types for key and value",
        r"__type\(key, int\); __type\(value, …\)", SOCKETS % "__type(key, int); __type(value, __u64);",
    ),
    "a storage of cgroups with a size": (
        STORAGE.replace("CGROUP_STORAGE);", "CGROUP_STORAGE); __uint(max_entries, 1);") + KEPT,
        "the kernel refuses max_entries=1", "leave it out", STORAGE + KEPT,
    ),
    "a text behind another": (
        OPENED % "int n = bpf_probe_read_user_str(v, 128, (void *)ctx->args[0]); if (n < 0) return 0;"
        " bpf_probe_read_user_str((char *)v + n, 256 - n, (void *)ctx->args[0]); return 0;",
        "adds the largest offset and the largest length",
        r"if \(offset < 0 \|\| offset > 128\) return 0; and a length of at most 128",
        OPENED % "__s64 n = bpf_probe_read_user_str(v, 128, (void *)ctx->args[0]);"
        " if (n < 0 || n > 128) return 0;"
        " bpf_probe_read_user_str((char *)v + n, 128, (void *)ctx->args[0]); return 0;",
    ),
}  # fmt: skip
NEEDS = {
    "an arrow in BPF_CORE_READ": "kprobe/do_unlinkat",
    "a bit-field": "kprobe/do_unlinkat",
    "a letter of a task's name": "tp_btf/sched_switch",
    "a length of a dynptr's data": "bpf_dynptr_data",
    "a text behind another": "tracepoint",
}


def source(code):
    """Returns a whole source. Without the kernel's types, clang takes a tenth of the time."""
    needs_types = re.search(r'SEC\("(kprobe|tp_btf|tracepoint)/', code)
    return ('#include "vmlinux.h"' if needs_types else UAPI) + HEAD + code


@pytest.mark.parametrize("name", POSTS)
def test_what_is_said_helps(bpf, bpf_kernel, name):
    if name in NEEDS and not bpf_kernel.has(NEEDS[name]):
        pytest.skip(f"this kernel has no {NEEDS[name]}")
    bad, why, fix, good = POSTS[name]
    with pytest.raises(BpfError) as error:
        bpf.load(code=source(bad))
    assert error.match(f"(?s){why}.*-> .*{fix}")
    bpf.load(code=source(good))


def test_a_global_function_that_moves_the_packet(bpf):
    """Old kernels accept it, which is a fault of theirs."""
    first = "PACKET if (data + 14 > end || pull(ctx)) return 0;"
    again = "data = (void *)(long)ctx->data; if (data + 1 > (void *)(long)ctx->data_end) return 0;"
    said = ""
    try:
        bpf.load(code=source(PULL + TC % f"{first} return *(char *)data;"))
    except LoadError as error:
        said = str(error)
    moves = "a function that is called before may move the packet"
    assert not said or (moves in said and "-> read data and data_end again" in said)
    bpf.load(code=source(PULL + TC % f"{first} {again} return *(char *)data;"))


def test_a_live_program_array_of_another_type(bpf):
    first = bpf.load(code=source(XDP % "bpf_tail_call(ctx, &jumps, 0); return 2;"))
    code = source(TC % "bpf_tail_call(ctx, &jumps, 0); return 0;")
    with pytest.raises(LoadError, match=r"of type xdp use the live program array 'jumps'(?s:.*)-> .*reuse="):
        bpf.load(code=code, reuse={"jumps": first.maps.jumps})
    bpf.load(code=code)


GLOBAL_LOCK = "struct bpf_spin_lock lock; int n;" + TC % (
    "bpf_spin_lock(&lock); n++; bpf_spin_unlock(&lock); return 0;"
)
LIST = (
    '#define A SEC(".bss.A") %s __attribute__((aligned(8)))\n'
    '#define OF_ITEMS __attribute__((btf_decl_tag("contains:item:list")))\n'
    "struct item { struct bpf_list_node list; long number; }; struct item *kept_in_types;"
    "struct bpf_spin_lock lock A; struct bpf_list_head items A OF_ITEMS;"
) + TC % 'asm volatile("" :: "r"(&items)); bpf_spin_lock(&lock); bpf_spin_unlock(&lock); return 0;'
LOOKED_UP = TC % (
    "__u32 i = 0; struct locked *x = bpf_map_lookup_elem(&locks, &i); if (!x) return 0; "
    "bpf_spin_lock(&x->lock); x->n++; bpf_spin_unlock(&x->lock); return 0;"
)


def test_a_lock_that_is_a_global_variable(bpf, bpf_kernel):
    if bpf_kernel.version >= (6, 2) and version() < (1, 5):
        bpf.load(code=source(GLOBAL_LOCK))
    else:
        why = r"the lock is a global variable|\.bss has a lock"
        with pytest.raises(LoadError, match=rf"(?:{why})(?s:.*)-> .*array map"):
            bpf.load(code=source(GLOBAL_LOCK))
    if bpf_kernel.version >= (6, 2):
        bpf.load(code=source("static " + GLOBAL_LOCK.replace("lock;", 'lock SEC(".bss.locks");', 1)))
    bpf.load(code=source(LOOKED_UP))


@pytest.mark.bpf_requires("bpf_list_push_front_impl")
def test_a_list_that_is_a_global_variable(bpf):
    """libbpf from 1.5 on maps its section into memory, which the kernel refuses, but no __hidden variable."""
    code = f'#include "vmlinux.h"{HEAD}{LIST}'
    if version() < (1, 5):
        bpf.load(code=code % "")
    else:
        with pytest.raises(LoadError, match=r'\.bss\.A has .* a list(?s:.*)SEC\("\.bss\.A"\) __hidden'):
            bpf.load(code=code % "")
    bpf.load(code=code % "__hidden")


@pytest.mark.bpf_requires("lsm", "fentry/security_getprocattr")
def test_a_hook_at_which_no_program_is_called(bpf, bpf_kernel):
    code = source('SEC("SECTION") int prog(void *ctx) { return 0; }')
    said = ""
    try:
        bpf.load(code=code.replace("SECTION", "lsm/getprocattr"))
    except LoadError as error:
        said = str(error)
    # the list of such hooks came with Linux 6.12, and with updates of older ones
    assert said or bpf_kernel.version < (6, 12)
    assert not said or "no BPF program at the hook getprocattr" in said
    assert not said or 'SEC("fentry/security_getprocattr")' in said
    bpf.load(code=code.replace("SECTION", "fentry/security_getprocattr")).attach()


@pytest.mark.parametrize("section", ["xdp/devmap", "xdp/cpumap"])
def test_a_program_of_a_maps_element_on_an_interface(bpf, bpf_netns, section):
    code = source((XDP % "return 2;").replace("xdp", section, 1))
    with bpf_netns("alone").enter():
        with pytest.raises(AttachError) as error:
            bpf.load(code=code).programs.prog.attach(interface="lo")
        assert 'for an interface write SEC("xdp")' in error.value.fix
        bpf.load(code=source(XDP % "return 2;")).programs.prog.attach(interface="lo").close()


@pytest.mark.bpf_requires("kprobe")
def test_a_system_call_without_its_prefix(bpf, bpf_kernel):
    code = source('SEC("SECTION") int prog(void *ctx) { return 0; }')
    with pytest.raises(AttachError, match="the function of that system call is '__") as error:
        bpf.load(code=code.replace("SECTION", "kprobe/sys_clone")).attach()
    name = error.value.fix.split()[1].rstrip(",")
    assert 'SEC("ksyscall/clone")' in error.value.fix
    bpf.load(code=code.replace("SECTION", f"kprobe/{name}")).attach()
    bpf.load(code=code.replace("SECTION", "ksyscall/clone")).attach()
    if bpf_kernel.has("fentry"):
        with pytest.raises(LoadError, match=f"the function of that system call is '{name}'"):
            bpf.load(code=code.replace("SECTION", "fentry/sys_clone"))
        bpf.load(code=code.replace("SECTION", f"fentry/{name}")).attach()
