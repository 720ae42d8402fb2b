"""Says what a source writes in place of bcc's macros and methods, and of macros of the kernel's own code."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation

_BCC_MAPS = {
    "BPF_ARRAY": "ARRAY",
    "BPF_HASH": "HASH",
    "BPF_LPM_TRIE": "LPM_TRIE",
    "BPF_PERCPU_ARRAY": "PERCPU_ARRAY",
    "BPF_PERCPU_HASH": "PERCPU_HASH",
    "BPF_PERF_OUTPUT": "PERF_EVENT_ARRAY",
    "BPF_PROG_ARRAY": "PROG_ARRAY",
    "BPF_QUEUE": "QUEUE",
    "BPF_RINGBUF_OUTPUT": "RINGBUF",
    "BPF_STACK": "STACK",
    "BPF_STACK_TRACE": "STACK_TRACE",
    "BPF_TABLE": "HASH",
}
_TYPES = "__uint(max_entries, …); __type(key, …); __type(value, …);"
_DECLARED = {  # the types that are not declared by `_TYPES`
    "LPM_TRIE": f"__uint(map_flags, BPF_F_NO_PREALLOC); {_TYPES}",
    "PERF_EVENT_ARRAY": "__uint(key_size, 4); __uint(value_size, 4);",
    "PROG_ARRAY": "__uint(max_entries, …); __uint(key_size, 4); __uint(value_size, 4);",
    "QUEUE": "__uint(max_entries, …); __type(value, …);",
    "RINGBUF": "__uint(max_entries, 64 * 4096);",
    "STACK": "__uint(max_entries, …); __type(value, …);",
    "STACK_TRACE": "__uint(max_entries, …); __uint(key_size, 4); __uint(value_size, 127 * 8);",
}
_BCC_MACRO = re.compile(rf"error: [^\n]*\n[^\n]*?\b({'|'.join(_BCC_MAPS)})\((?:\"\w+\", )?[^\n]*")
_BCC_METHODS = {
    "lookup": "bpf_map_lookup_elem(&{0}, &key)",
    "lookup_or_init": "bpf_map_lookup_elem(&{0}, &key), and bpf_map_update_elem() where that is 0",
    "lookup_or_try_init": "bpf_map_lookup_elem(&{0}, &key), and bpf_map_update_elem() where that is 0",
    "update": "bpf_map_update_elem(&{0}, &key, &value, BPF_ANY)",
    "insert": "bpf_map_update_elem(&{0}, &key, &value, BPF_NOEXIST)",
    "delete": "bpf_map_delete_elem(&{0}, &key)",
    "increment": "bpf_map_lookup_elem(&{0}, &key), and __atomic_fetch_add(value, 1, __ATOMIC_RELAXED)",
    "perf_submit": "bpf_perf_event_output(ctx, &{0}, BPF_F_CURRENT_CPU, &event, sizeof(event))",
    "ringbuf_output": "bpf_ringbuf_output(&{0}, &event, sizeof(event), 0)",
    "call": "bpf_tail_call(ctx, &{0}, index)",
}
_METHOD = re.compile(
    rf"error: no member named '({'|'.join(_BCC_METHODS)})' in 'struct \(unnamed[^\n]*\n[^\n]*?\b(\w+)\.\1\("
)
_SUBSCRIPT = re.compile(r"error: subscripted value is not an array, pointer, or vector\n[^\n]*?\b(\w+)\[")
_OF_THE_KERNEL = {
    "likely": "likely(x) __builtin_expect(!!(x), 1)",
    "unlikely": "unlikely(x) __builtin_expect(!!(x), 0)",
    "min": "min(a, b) ((a) < (b) ? (a) : (b))",
    "max": "max(a, b) ((a) > (b) ? (a) : (b))",
    "ARRAY_SIZE": "ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))",
    "READ_ONCE": "READ_ONCE(x) (*(volatile typeof(x) *)&(x))",
    "WRITE_ONCE": "WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))",
    "BIT": "BIT(n) (1UL << (n))",
    "IS_ERR": "IS_ERR(p) ((unsigned long)(p) >= (unsigned long)-4095)",
    "swap": "swap(a, b) do { typeof(a) t = (a); (a) = (b); (b) = t; } while (0)",
    "TASK_COMM_LEN": "TASK_COMM_LEN 16",
    "IFNAMSIZ": "IFNAMSIZ 16",
    "PAGE_SIZE": "PAGE_SIZE 4096",
}


def explain_bcc(output: str) -> Explanation | None:
    """Explains what only bcc's compiler understands; None for another error."""
    macro = _BCC_MACRO.search(output)
    if macro and f"expanded from macro '{macro[1]}'" not in output:
        kind = _BCC_MAPS[macro[1]]
        return Explanation(
            f"{macro[1]}() is a macro of bcc",
            f"declare the map: struct {{ __uint(type, BPF_MAP_TYPE_{kind}); {_DECLARED.get(kind, _TYPES)} }} "
            'NAME SEC(".maps");',
        )
    if method := _METHOD.search(output):
        way = _BCC_METHODS[method[1]].format(method[2])
        return Explanation(f"{method[2]}.{method[1]}() is written so for bcc only", f"write {way}")
    if element := _SUBSCRIPT.search(output):
        return Explanation(
            f"{element[1]} is no array; if it is a map, its elements are reached by helpers only",
            f"look it up, value = bpf_map_lookup_elem(&{element[1]}, &key), and change *value unless it is "
            f"0; or store one: bpf_map_update_elem(&{element[1]}, &key, &value, BPF_ANY)",
        )
    if re.search(r"too few arguments to function call[^\n]*\n[^\n]*\bbpf_trace_printk\(", output):
        return Explanation(
            "bpf_trace_printk() takes the size of the format, too; bcc adds it",
            'write bpf_printk("…"), of <bpf/bpf_helpers.h>',
        )
    return None


def explain_macro(name: str) -> Explanation | None:
    """Explains a macro of the kernel's own code, and gives its definition; None for another name."""
    text = _OF_THE_KERNEL.get(name)
    if text is None:
        return None
    return Explanation(
        f"{name} is a macro of the kernel's own code, and in no header for BPF programs",
        f"write it in the source: #define {text}",
    )
