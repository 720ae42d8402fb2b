"""Tests common faults in programs: cause, line and remedy are in the first ten lines of the message."""

import re

import pytest

from pytest_bpfmaps import BpfError, LoadError

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
struct event { __u32 len, mark; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } rb SEC(".maps");
struct val { struct bpf_spin_lock lock; __u64 n; };
struct {
	__uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, struct val);
} values SEC(".maps");
"""

BROKEN = {
    "an early return keeps a record": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            struct event *e = bpf_ringbuf_reserve(&rb, sizeof(*e), 0); // line: acquired
            if (!e)
                return 0;
            e->len = skb->len;
            if (skb->len < 60)
                return 0;
            e->mark = skb->mark;
            bpf_ringbuf_submit(e, 0);
            return 0;
        }""",
        r"the result of bpf_ringbuf_reserve\(\) is not released on some path",
        r"call bpf_ringbuf_submit\(\) or bpf_ringbuf_discard\(\) on every path",
    ),
    "a socket that was looked up": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            struct bpf_sock_tuple t = {};
            void *sk = bpf_sk_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0); // line: acquired
            return sk ? 1 : 0;
        }""",
        r"the result of bpf_sk_lookup_tcp\(\) is not released",
        r"call bpf_sk_release\(\)",
    ),
    "an early return keeps a lock": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            __u32 key = 0;
            struct val *v = bpf_map_lookup_elem(&values, &key);
            if (!v)
                return 0;
            bpf_spin_lock(&v->lock);
            if (v->n++ > 10) // line
                return 0;
            bpf_spin_unlock(&v->lock);
            return 0;
        }""",
        r"a path leaves the region of a bpf_spin_lock\(\) without bpf_spin_unlock\(\)",
        r"call bpf_spin_unlock\(\) on every path",
    ),
    "a field that socket filters may not read": (
        """
        SEC("socket") int prog(struct __sk_buff *skb)
        {
            return skb->data_end > 20; // line
        }""",
        r"programs of type socket_filter may not read the field 'data_end' of struct __sk_buff",
        r"use bpf_skb_load_bytes\(\), or another type of program",
    ),
    "a field that tc may not write": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            skb->protocol = 8; // line
            return 0;
        }""",
        r"programs of type sched_cls may not write the field 'protocol' of struct __sk_buff",
        r"bpf_skb_change_proto\(\)",
    ),
    "a part of a field": (
        """
        SEC("xdp") int prog(struct xdp_md *ctx)
        {
            return *(volatile __u16 *)&ctx->data_end; // line
        }""",
        r"may not read the field 'data_end' of struct xdp_md in 2 bytes, as it has 4",
        r"read the whole field",
    ),
    "two functions that need too much stack together": (
        """
        static __attribute__((noinline)) int inner(struct __sk_buff *skb)
        {
            char b[300];
            bpf_skb_load_bytes(skb, 0, b, sizeof(b));
            return bpf_ringbuf_output(&rb, b, sizeof(b), 0);
        }
        SEC("tc")
        int prog(struct __sk_buff *skb) // line
        {
            char a[300];
            bpf_skb_load_bytes(skb, 0, a, sizeof(a));
            return inner(skb) + bpf_ringbuf_output(&rb, a, sizeof(a), 0);
        }""",
        r"more than its 512 bytes of stack",
        r"keep large variables in a per-CPU array map",
    ),
    "a section with a typing error": (
        """
        SEC("xpd") // line
        int prog(struct xdp_md *ctx) { return XDP_PASS; }""",
        r"does not know the section name 'xpd'",
        r"did you mean 'xdp'\?",
    ),
    "a kernel function that nobody has": (
        """
        extern int bpf_xdp_teleport(struct xdp_md *ctx) __attribute__((section(".ksyms")));
        SEC("xdp") int prog(struct xdp_md *ctx)
        {
            return bpf_xdp_teleport(ctx); // line
        }""",
        r"has no kernel function bpf_xdp_teleport",
        r"bpf_requires\(kfunc='bpf_xdp_teleport'\)",
    ),
    "a map's wrong key": (
        """
        struct {
            __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
            __uint(max_entries, 10);
            __type(key, __u64);
            __type(value, __u64);
        } by_cpu SEC(".maps"); // line
        SEC("xdp") int prog(struct xdp_md *ctx)
        {
            __u64 key = 0;
            return bpf_map_lookup_elem(&by_cpu, &key) ? 1 : 2;
        }""",
        r"map 'by_cpu': the kernel refuses key_size=8",
        r"maps of type percpu_array have keys of 4 bytes",
    ),
    "a map with four thousand million entries": (
        """
        struct {
            __uint(type, BPF_MAP_TYPE_HASH);
            __uint(max_entries, 4000000000);
            __type(key, __u64);
            __type(value, __u64);
        } flows SEC(".maps"); // line
        SEC("xdp") int prog(struct xdp_md *ctx)
        {
            __u64 key = 0;
            return bpf_map_lookup_elem(&flows, &key) ? 1 : 2;
        }""",
        r"4000000000 elements \(max_entries\) of 16 bytes are 64000000000 bytes",
        r"make fewer or smaller elements",
    ),
    "too large an array on the stack": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            char packet[600] = {}; // line
            bpf_skb_load_bytes(skb, 0, packet, 64);
            return bpf_ringbuf_output(&rb, packet, sizeof(packet), 0);
        }""",
        r"a function needs more than the 512 bytes of stack",
        r"keep large variables in a per-CPU array map",
    ),
    "a record that is used after it was submitted": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            volatile int *e = bpf_ringbuf_reserve(&rb, 4, 0);
            if (!e)
                return 0;
            bpf_ringbuf_submit((void *)e, 0);
            *e = 2; // line
            return 0;
        }""",
        r"the memory is used after its release",
        r"move the use before the call that releases it",
    ),
    "a record that is submitted twice": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            int *e = bpf_ringbuf_reserve(&rb, 4, 0);
            if (!e)
                return 0;
            bpf_ringbuf_submit(e, 0);
            bpf_ringbuf_submit(e, 0); // line
            return 0;
        }""",
        r"the record was submitted or discarded before",
        r"exactly once",
    ),
    "a record of variable size": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            char *e = bpf_ringbuf_reserve(&rb, skb->len, 0); // line
            if (!e)
                return 0;
            bpf_ringbuf_submit(e, 0);
            return 0;
        }""",
        r"known when the program is compiled",
        r"bpf_ringbuf_output\(\)",
    ),
    "an offset into the packet without a bound": (
        """
        SEC("xdp") int prog(struct xdp_md *ctx)
        {
            char *at = (void *)(long)ctx->data;
            at += bpf_get_prandom_u32();
            if (at + 1 > (char *)(long)ctx->data_end)
                return 1;
            return *at; // line
        }""",
        r"the offset that was added to the packet pointer has no bound|has not proven to be there",
        r"bound the offset( before you add it| that was added)",
    ),
    "a length without a bound": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            char buffer[128] = {};
            bpf_skb_load_bytes(skb, 0, buffer, skb->len); // line
            return bpf_ringbuf_output(&rb, buffer, sizeof(buffer), 0);
        }""",
        r"the length may be 0, negative, or larger than the buffer|can point outside of the memory",
        r"bound it",
    ),
    "a tail call through a hash": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            bpf_tail_call(skb, &values, 0); // line
            return 0;
        }""",
        r"bpf_tail_call\(\) takes a program array",
        r"BPF_MAP_TYPE_PROG_ARRAY",
    ),
    "a helper of other maps": (
        """
        struct {
            __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, int); __type(value, long);
        } slots SEC(".maps");
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            long value = 1;
            return bpf_map_push_elem(&slots, &value, 0); // line
        }""",
        r"bpf_map_push_elem\(\) does not take maps of this type",
        r"BPF_MAP_TYPE_QUEUE, STACK or BLOOM_FILTER",
    ),
    "a function without a section": (
        """
        int prog(struct __sk_buff *skb) { return 0; } // line
        """,
        r"the function has no section",
        r'put SEC\("xdp"\)',
    ),
    "functions without sections": (
        """
        int prog(struct __sk_buff *skb) { return 0; } // line
        int other(struct __sk_buff *skb) { return 1; }
        """,
        r"the function has no section",
        r'put SEC\("xdp"\)',
    ),
    "a map without a type": (
        """
        struct { __uint(max_entries, 2); __type(key, __u32); __type(value, __u32); } h SEC(".maps"); // line
        SEC("tc") int prog(struct __sk_buff *skb) { return bpf_map_lookup_elem(&h, &(int){0}) != 0; }
        """,
        r"map 'h' has no type",
        r"__uint\(type, BPF_MAP_TYPE_HASH\)",
    ),
    "a map of maps that says nothing of those": (
        """
        struct {
            __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2);
            __type(key, int); __type(value, int);
        } outer SEC(".maps"); // line
        SEC("tc") int prog(struct __sk_buff *skb) { return bpf_map_lookup_elem(&outer, &(int){0}) != 0; }
        """,
        r"a map of maps needs the type and the sizes of its inner maps",
        r"__array\(values, struct",
    ),
    "a function of the C library": (
        """
        extern int strlen(const char *);
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            char text[20];
            bpf_skb_load_bytes(skb, 0, text, 20);
            return strlen(text); // line
        }""",
        r"strlen belongs to the C library, which BPF programs don't have",
        r"write a loop up to the size of the array",
    ),
    "a number with a fraction": (
        """
        SEC("tc") int prog(struct __sk_buff *skb)
        {
            return (int)(skb->len * 1.5); // line
        }""",
        r"there is no floating point",
        r"count in integers",
    ),
    "a header with a typing error": (
        """
        #include <bpf/bpf_helperz.h> // line
        """,
        r"'bpf/bpf_helperz\.h' not found",
        r"did you mean <bpf/bpf_helpers\.h>",
    ),
}
RELOCATIONS = {
    "a field of another kernel": (
        """
        struct task_struct { int on_crew; } __attribute__((preserve_access_index));
        int seen;
        SEC("raw_tp/sched_switch") int prog(void *ctx)
        {
            struct task_struct *t = (void *)bpf_get_current_task();

            seen = BPF_CORE_READ(t, on_crew); // line
            return 0;
        }""",
        r"does not have the field 'on_crew' in struct task_struct",
        r"did you mean .*'on_rq'",
    ),
    "an enumerator of another kernel": (
        """
        enum bpf_map_type___mine { BPF_MAP_TYPE_TELEPORT = 9 };
        int seen;
        SEC("raw_tp/sched_switch") int prog(void *ctx)
        {
            seen = bpf_core_enum_value(enum bpf_map_type___mine, BPF_MAP_TYPE_TELEPORT); // line
            return 0;
        }""",
        r"does not have BPF_MAP_TYPE_TELEPORT in enum bpf_map_type",
        r"bpf_core_enum_value_exists",
    ),
}


def check(bpf, source, why, fix):
    code = HEAD + source
    with pytest.raises(BpfError) as caught:
        bpf.load(code=code)
    message = str(caught.value)
    print(message)
    lines = message.splitlines()
    assert len(lines) <= 10
    assert re.search(why, lines[0])
    assert lines[-1].startswith("  -> ")
    assert re.search(fix, lines[-1])
    marked = next(n for n, line in enumerate(code.splitlines(), 1) if "// line" in line)
    assert f"inline.bpf.c:{marked}:" in message


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_lines_say_it_all(bpf, name):
    check(bpf, *BROKEN[name])


@pytest.mark.bpf_requires("raw_tracepoint")
@pytest.mark.parametrize("name", RELOCATIONS)
def test_what_another_kernel_has(bpf, name):
    check(bpf, *RELOCATIONS[name])


def test_a_source_that_is_gone_is_not_missed(bpf, tmp_path):
    source = tmp_path / "gone.bpf.c"
    source.write_text(HEAD + BROKEN["a map's wrong key"][0])
    built = bpf.compile(source)
    source.unlink()
    with pytest.raises(LoadError, match="refuses key_size=8"):
        bpf.load(built)
