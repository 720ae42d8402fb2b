// SPDX-License-Identifier: MIT
// Gives each packet a ticket from a queue that user space fills, and pushes used tickets onto a stack. The
// newest is on top. Both maps have values without keys.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 16);
	__type(value, __u32);
} tickets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 16);
	__type(value, __u32);
} used SEC(".maps");

SEC("xdp")
int admit(struct xdp_md *ctx)
{
	__u32 ticket;

	if (bpf_map_pop_elem(&tickets, &ticket))
		return XDP_DROP;                      // no ticket is left
	bpf_map_push_elem(&used, &ticket, BPF_EXIST); // BPF_EXIST: a full stack drops its oldest value
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
