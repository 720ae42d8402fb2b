// SPDX-License-Identifier: MIT
// Wires interfaces together like a patch panel: what comes in on one leaves on the other. A hash of devices
// finds an interface by any number; an array of devices would need a slot up to the largest.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);   // index of the interface that a packet came in on
	__type(value, __u32); // and of the one that it leaves on
} wires SEC(".maps");

SEC("xdp")
int patch(struct xdp_md *ctx)
{
	return bpf_redirect_map(&wires, ctx->ingress_ifindex, XDP_DROP); // not wired: dropped
}

char LICENSE[] SEC("license") = "GPL";
