"""C text of a map that is pinned by its name, and of a program that counts in it."""

COUNTS = """
struct {{
    __uint(type, BPF_MAP_TYPE_{type});
    __uint(max_entries, {max_entries});
    __uint(map_flags, {flags});
    __uint(pinning, LIBBPF_PIN_BY_NAME);
    __type(key, __u32);
    __type(value, {value});
}} counts SEC(".maps");
"""
PROGRAM = """
SEC("xdp") int {name}(struct xdp_md *ctx)
{{
    __u32 key = {key};
    __u64 one = 1, *value = bpf_map_lookup_elem(&counts, &key);

    if (value)
        __sync_fetch_and_add(value, 1);
    else
        bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
    return XDP_PASS;
}}
"""
HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""


def code(name="count", *, key=1, type="HASH", max_entries=8, flags=0, value="__u64"):
    fields = {"type": type, "max_entries": max_entries, "flags": flags, "value": value}
    return COUNTS.format(**fields) + (PROGRAM.format(name=name, key=key) if name else "")
