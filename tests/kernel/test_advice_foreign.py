"""Tests sources that are written as for bcc, or as for the kernel itself: each compiles after the remedy."""

import re

import pytest

from pytest_bpfmaps import CompileError

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
XDP = 'SEC("xdp") int prog(struct xdp_md *ctx) { %s return 2; }'
HASH = (
    "struct { __uint(type, BPF_MAP_TYPE_%s); __uint(max_entries, 4); __type(key, __u32);"
    ' __type(value, __u64); } counts SEC(".maps");'
)
USE = HASH % "HASH" + XDP % "__u32 key = 1; __u64 value = 1; %s"
LOOKUP = USE % "__u64 *found = bpf_map_lookup_elem(&counts, &key); if (found) %s;"

# the mistake; why and what to do, as the message says; the program after that was done
BCC = {
    "a map": (
        "BPF_HASH(counts, int, long);" + XDP % "", "is a macro of bcc", "HASH.*__type",
        HASH % "HASH" + XDP % "",
    ),
    "an array": (
        "BPF_PERCPU_ARRAY(counts, long, 4);" + XDP % "", "is a macro of bcc", "BPF_MAP_TYPE_PERCPU_ARRAY",
        HASH % "PERCPU_ARRAY" + XDP % "",
    ),
    "a lookup": (
        USE % "return counts.lookup(&key) != 0;", "for bcc only", r"bpf_map_lookup_elem\(&counts, &key\)",
        USE % "return bpf_map_lookup_elem(&counts, &key) != 0;",
    ),
    "an update": (
        USE % "counts.update(&key, &value);", "for bcc only", r"bpf_map_update_elem\(&counts, &key, &value,",
        USE % "bpf_map_update_elem(&counts, &key, &value, BPF_ANY);",
    ),
    "a sum": (
        USE % "counts.increment(key);", "for bcc only", r"__atomic_fetch_add\(value, 1, __ATOMIC_RELAXED\)",
        LOOKUP % "__atomic_fetch_add(found, 1, __ATOMIC_RELAXED)",
    ),
    "an element": (
        USE % "counts[key]++;", "counts is no array", r"value = bpf_map_lookup_elem\(&counts, &key\)",
        LOOKUP % "*found += 1",
    ),
    "a text": (
        XDP % 'bpf_trace_printk("hello");', "takes the size of the format", r"write bpf_printk\(",
        XDP % 'bpf_printk("hello");',
    ),
    "sprintf": (
        XDP % 'char out[8]; sprintf(out, "%d", 3); bpf_printk("%s", out);',
        "belongs to the C library", r"BPF_SNPRINTF\(out, sizeof\(out\)",
        XDP % 'char out[8]; BPF_SNPRINTF(out, sizeof(out), "%d", 3); bpf_printk("%s", out);',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BCC)
def test_what_is_said_helps(bpf, name):
    bad, why, fix, good = BCC[name]
    with pytest.raises(CompileError) as error:
        bpf.open(code=HEAD + bad)
    assert error.match(f"(?s){why}.*-> .*{fix}")
    bpf.open(code=HEAD + good)


MAPS = {
    **dict.fromkeys(("BPF_HASH", "BPF_ARRAY", "BPF_PERCPU_HASH", "BPF_PERCPU_ARRAY"), "__u32"),
    "BPF_LPM_TRIE": "__u64",
    **dict.fromkeys(("BPF_QUEUE", "BPF_STACK", "BPF_PERF_OUTPUT", "BPF_PROG_ARRAY", "BPF_STACK_TRACE"), ""),
    "BPF_RINGBUF_OUTPUT": "",
}


@pytest.mark.parametrize(("macro", "key"), MAPS.items())
def test_the_map_that_is_proposed_loads(bpf, macro, key):
    with pytest.raises(CompileError) as error:
        bpf.open(code=f"{HEAD}{macro}(name, 4);{XDP % ''}")
    declared = re.search(r"declare the map: (struct .*)$", str(error.value), re.MULTILINE)[1]
    values = {"max_entries, …": "max_entries, 4", "key, …": f"key, {key}", "value, …": "value, __u64"}
    for place, value in values.items():
        declared = declared.replace(place, value)
    assert "…" not in declared
    bpf.load(code=f"{HEAD}{declared}{XDP % ''}")


def test_a_macro_of_the_sources_own(bpf):
    own = "#define BPF_HASH(name) struct { __uint(type, TYPE); __uint(max_entries, 4);"
    own += ' __type(key, int); __type(value, int); } name SEC(".maps");'
    code = f"{HEAD}\n{own}\nBPF_HASH(counts)\n{XDP % ''}"
    with pytest.raises(CompileError) as error:
        bpf.open(code=code)
    assert "TYPE" in str(error.value)
    assert "bcc" not in str(error.value)
    bpf.open(code=code.replace("TYPE", "BPF_MAP_TYPE_HASH"))


MACROS = [
    "if (likely(ctx->rx_queue_index)) return 1;",
    "if (unlikely(ctx->rx_queue_index)) return 1;",
    "return min(ctx->rx_queue_index, 1);",
    "return max(ctx->rx_queue_index, 1) & 1;",
    "int a[3] = {1, 2, 3}; return ARRAY_SIZE(a);",
    "int a = 3; return READ_ONCE(a);",
    "int a = 3; WRITE_ONCE(a, 2); return a;",
    "return ctx->rx_queue_index & BIT(2);",
    "return IS_ERR((void *)(long)ctx->rx_queue_index);",
    "int a = 3, b = ctx->rx_queue_index; swap(a, b); return a & 1;",
    "char a[TASK_COMM_LEN] = {}; return a[ctx->rx_queue_index & 15];",
    "char a[IFNAMSIZ] = {}; return a[ctx->rx_queue_index & 15];",
    "return ctx->rx_queue_index / PAGE_SIZE;",
]


@pytest.mark.parametrize("body", MACROS)
def test_the_definition_that_is_named(bpf, body):
    with pytest.raises(CompileError, match="a macro") as error:
        bpf.open(code=HEAD + XDP % body)
    defined = re.search("#define .*", error.value.fix)[0]
    bpf.open(code=f"{HEAD}\n{defined}\n{XDP % body}")


@pytest.mark.parametrize("header", ["linux/skbuff.h", "net/sock.h", "uapi/linux/ptrace.h"])
def test_a_header_of_the_kernels_own_code(bpf, header):
    with pytest.raises(
        CompileError, match=f"<{header}> is a header of the kernel's own code(?s:.*)vmlinux.h"
    ):
        bpf.open(code=f"#include <{header}>\n{HEAD}{XDP % ''}")
    bpf.open(code='#include "vmlinux.h"\n' + HEAD.replace("#include <linux/bpf.h>", "") + XDP % "")


def test_a_type_that_is_defined_again(bpf):
    code = '#include "vmlinux.h"\ntypedef int bool;' + HEAD.replace("#include <linux/bpf.h>", "") + XDP % ""
    with pytest.raises(CompileError, match=r"has a bool of its own(?s:.*)-> .*leave your definition out"):
        bpf.open(code=code)
    bpf.open(code=code.replace("typedef int bool;", ""))
