// SPDX-License-Identifier: MIT
// Connects interfaces like a patch panel: a packet that arrives at one leaves by the other. A hash of
// devices takes any number as a key. An array of devices would need a slot for every number up to the
// largest.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);   // index of the interface where a packet arrives
	__type(value, __u32); // index of the interface where it leaves
} wires SEC(".maps");

SEC("xdp")
int patch(struct xdp_md *ctx)
{
	return bpf_redirect_map(&wires, ctx->ingress_ifindex, XDP_DROP); // XDP_DROP without an element
}

char LICENSE[] SEC("license") = "GPL";
