"""Tests mistakes of beginners: the message names the cause, and the program loads after its remedy."""

import re

import pytest

from pytest_bpfmaps import BpfError

HEAD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
char LICENSE[] SEC("license") = "GPL";
struct val { __u32 len; char data[64]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, struct val); } a SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64);
         __type(key, __u32); __type(value, __u64); } h SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
         __uint(key_size, 4); __uint(value_size, 4); } pe SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(max_entries, 4);
         __uint(key_size, 4); __uint(value_size, 1016); } st SEC(".maps");
#define VALUE __u32 k = 0; struct val *v = bpf_map_lookup_elem(&a, &k); if (!v) return 0;
#define PACKET void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
static __noinline int one(int x) { return x + 1; }
static __noinline int two(int x) { return x + 2; }
"""
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { %s }'
TC = 'SEC("tc") int prog(struct __sk_buff *skb) { %s }'
COMM = 'SEC("tp/sched/sched_switch") int prog(void *ctx) { char c[16] = {}; bpf_get_current_comm(c, 16); %s }'
KPROBE = 'SEC("kprobe/vfs_read") int prog(struct pt_regs *ctx) { %s }'
IP = "PACKET struct iphdr *ip = data + sizeof(struct ethhdr); if ((void *)(ip + 1) > end) return 0; "
UDP = IP + "struct udphdr *u = (void *)ip + ip->ihl * 4; "
BYTES = "return bpf_skb_load_bytes(skb, 0, v->data, n);"
BOUNDED = "__s64 n = skb->len; if (n > 64) return 0; barrier_var(n); if (n < 1) return 0; "
LARGE = """
struct page_of { char first[2048], half[2048]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
         __type(key, __u32); __type(value, struct page_of); } large SEC(".maps");
"""
PAGE = "__u32 k = 0; struct page_of *p = bpf_map_lookup_elem(&large, &k); if (!p) return 0; "

# the mistake; why and what to do, as the message says; the program after that was done
MISTAKES = {
    "a function of the C library": (
        XDP % "return get_nprocs();", r"get_nprocs\(\) is declared nowhere.*no C library",
        "write it yourself",
        "static int get_nprocs(void) { return 2; }" + XDP % "return get_nprocs();",
    ),
    "one that is declared": (
        "extern int get_nprocs(void);" + XDP % "return get_nprocs();", "declared but not defined",
        "yourself",
        "static int get_nprocs(void) { return 2; }" + XDP % "return get_nprocs();",
    ),
    "strcmp": (
        COMM % 'return strcmp(c, "bash");', "strcmp belongs to the C library",
        r"bpf_strncmp\(text, size.*or a loop",
        COMM % 'int same = 1; for (int i = 0; i < 5; i++) same &= c[i] == "bash"[i]; return !same;',
    ),
    "getpid": (
        COMM % "return getpid();", "getpid belongs to the C library", "bpf_get_current_pid_tgid",
        COMM % "return bpf_get_current_pid_tgid() >> 32;",
    ),
    "the time": (
        XDP % "return time(0);", "time belongs to the C library", "bpf_ktime_get_ns",
        XDP % "return bpf_ktime_get_ns() & 1;",
    ),
    "a comparison beyond the variable": (
        COMM % 'return __builtin_memcmp(c, "a very long text which has no end at all", 40);',
        "reads beyond the end of a variable on the stack", "only the bytes of the variable",
        COMM % 'return __builtin_memcmp(c, "a very long text", sizeof(c));',
    ),
    "a function pointer": (
        XDP % "int (*f)(int) = ctx->rx_queue_index ? one : two; return f(3);",
        "calls (a function )?through a pointer", "call each function by its name",
        XDP % "return ctx->rx_queue_index ? one(3) : two(3);",
    ),
    "a division by zero": (
        XDP % "int zero = 0; return 100 / zero;", "can end without a return value", "division by 0",
        XDP % "int zero = ctx->rx_queue_index; return zero ? 100U / zero : 0;",
    ),
    "a length of zero": (
        TC % ("VALUE __u32 n = skb->len; if (n > 64) return 0; " + BYTES),
        "length may be 0", "barrier_var", TC % ("VALUE " + BOUNDED + BYTES),
    ),
    "a length with a sign": (
        TC % ("VALUE int n = skb->len; if (n > 64) return 0; " + BYTES), "negative", "barrier_var",
        TC % ("VALUE " + BOUNDED + BYTES),
    ),
    "an index out of a value": (
        XDP % "VALUE return v->data[v->len];", "can point outside", "i &= SIZE - 1",
        XDP % "VALUE return v->data[v->len & 63];",
    ),
    "a key as a number": (
        XDP % "__u64 n = 1; return bpf_map_update_elem(&h, (void *)1, &n, 0);", "gets a number", "&key",
        XDP % "__u32 key = 1; __u64 n = 1; return bpf_map_update_elem(&h, &key, &n, 0);",
    ),
    "a constant that is written": (
        "const volatile int limit = 3;" + XDP % "*(volatile int *)&limit = 5; return limit;",
        "writes to a const variable", "remove the const",
        "volatile int limit = 3;" + XDP % "limit = 5; return limit;",
    ),
    "a map of another type": (
        XDP % "__u64 n = 1; return bpf_ringbuf_output(&pe, &n, 8, 0);", "does not take maps of this type",
        "RINGBUF",
        "struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } rb SEC(\".maps\");"
        + XDP % "__u64 n = 1; return bpf_ringbuf_output(&rb, &n, 8, 0);",
    ),
    "stacks in a hash": (
        KPROBE % "return bpf_get_stackid(ctx, &h, 0);", "does not take maps of this type", "STACK_TRACE",
        KPROBE % "return bpf_get_stackid(ctx, &st, 0);",
    ),
    "a kernel pointer that is followed": (
        KPROBE % "struct file *f = (void *)PT_REGS_PARM1(ctx); return f->f_flags;", "plain number",
        "BPF_CORE_READ",
        KPROBE % "struct file *f = (void *)PT_REGS_PARM1(ctx); return BPF_CORE_READ(f, f_flags);",
    ),
    "text of a process": (
        'SEC("tp/syscalls/sys_enter_openat") int prog(struct trace_event_raw_sys_enter *ctx)'
        " { return *(char *)ctx->args[1]; }",
        "plain number", r"user memory with …_read_user\(\)",
        'SEC("tp/syscalls/sys_enter_openat") int prog(struct trace_event_raw_sys_enter *ctx)'
        " { char c = 0; bpf_probe_read_user(&c, 1, (void *)ctx->args[1]); return c; }",
    ),
    "the next header": (
        XDP % (UDP + "return u->dest;"), "not proven to be there", "compare with data_end first",
        XDP % (UDP + "if ((void *)(u + 1) > end) return 0; return u->dest;"),
    ),
    "a header that is checked at its start": (
        XDP % "PACKET struct ethhdr *e = data; if ((void *)e > end) return 0; return e->h_proto;",
        "not proven to be there", "compare with data_end first",
        XDP % "PACKET struct ethhdr *e = data; if ((void *)(e + 1) > end) return 0; return e->h_proto;",
    ),
    "all bytes of a packet": (
        XDP % "PACKET int n = 0; for (__u8 *p = data; (void *)p < end; p++) n += *p; return n;",
        "not proven to be there", "compare with data_end first",
        XDP % "PACKET int n = 0; __u8 *p = data; for (int i = 0; i < 64; i++, p++)"
        " { if ((void *)(p + 1) > end) break; n += *p; } return n;",
    ),
    "a verdict out of range": (
        'SEC("cgroup_skb/egress") int prog(struct __sk_buff *skb) { return skb->len; }',
        "return 0 to [13]", "return 0 to [13]",
        'SEC("cgroup_skb/egress") int prog(struct __sk_buff *skb) { return skb->len > 60; }',
    ),
    "a loop without a bound": (
        XDP % "while (1) { if (bpf_get_prandom_u32() == 1) break; } return 0;", "ends",
        "bound it by a constant",
        XDP % "for (int i = 0; i < 100; i++) { if (bpf_get_prandom_u32() == 1) break; } return 0;",
    ),
    "a text is formatted with printf": (
        "int printf(const char *, ...);" + XDP % 'printf("here"); return 2;',
        "printf belongs to the C library", "bpf_printk", XDP % 'bpf_printk("here"); return 2;',
    ),
    "a length with strlen": (
        XDP % "VALUE return __builtin_strlen(v->data);", "strlen belongs to the C library", "a loop up to",
        XDP % "VALUE int n = 0; while (n < 64 && v->data[n]) n++; return n;",
    ),
    "a large value that is cleared": (
        LARGE + XDP % (PAGE + "__builtin_memset(p, 0, sizeof(*p)); return 2;"), r"no function memset\(\)",
        "loop of volatile stores",
        LARGE + XDP % (PAGE + "for (int i = 0; i < 512; i++) ((volatile __u64 *)p)[i] = 0; return 2;"),
    ),
    "a large value that is copied": (
        LARGE + XDP % (PAGE + "__builtin_memcpy(p, p->half, 2048); return 2;"), r"no function memcpy\(\)",
        "bpf_probe_read_kernel",
        LARGE + XDP % (PAGE + "bpf_probe_read_kernel(p, 2048, p->half); return 2;"),
    ),
    "a large value that is compared": (
        LARGE + XDP % (PAGE + "return __builtin_memcmp(p, p->half, 2048);"), r"no function memcmp\(\)",
        "compare more in a loop",
        LARGE + XDP % (PAGE + "int i = 0; while (i < 2048 && p->first[i] == p->half[i]) i++; return i;"),
    ),
    "a struct that is returned": (
        "struct big { __u64 a, b, c; }; __noinline struct big f(int x) { struct big r = {x}; return r; }"
        + XDP % "return f(ctx->rx_queue_index).b;",
        "can't return a struct", "a pointer to the struct, which it fills",
        "struct big { __u64 a, b, c; }; static __noinline int f(struct big *r, int x) { r->b = x; return 0; }"
        + XDP % "struct big r = {}; f(&r, ctx->rx_queue_index); return r.b;",
    ),
    "a static program": (
        'SEC("xdp") static int prog(struct xdp_md *ctx) { return 2; }', "is static", "remove 'static'",
        XDP % "return 2;",
    ),
    "the context as a value": (
        XDP % "__u32 k = 1; return bpf_map_update_elem(&h, &k, ctx, 0);", "the helper gets the context",
        "copy the fields",
        XDP % "__u32 k = 1; __u64 n = ctx->rx_queue_index; return bpf_map_update_elem(&h, &k, &n, 0);",
    ),
    "a helper for skbs": (
        XDP % "char c = 0; return bpf_skb_load_bytes((void *)ctx, 0, &c, 1);",
        "does not allow it in this type", "through the packet's own pointer",
        XDP % "PACKET if (data + 1 > end) return 1; return *(char *)data;",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_said_helps(bpf, bpf_kernel, name):
    bad, why, fix, good = MISTAKES[name]
    section = re.search(r'SEC\("(kprobe|tp)/', bad)
    if section and not bpf_kernel.has(section[1]):
        pytest.skip(f"this kernel has no {section[1]}")
    with pytest.raises(BpfError) as error:
        bpf.load(code=HEAD + bad)
    assert error.match(f"(?s){why}.*-> .*{fix}")
    bpf.load(code=HEAD + good)
