// SPDX-License-Identifier: MIT
// Passes packets to one program per protocol, by tail calls through a program array. User space fills the
// array, and may change it while packets arrive.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 256); // by IP protocol
	__type(key, __u32);
	__type(value, __u32);
} handlers SEC(".maps");

SEC("xdp")
int dispatch(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) <= end)
		bpf_tail_call(ctx, &handlers, ip->protocol); // returns only if there is no program
	return XDP_PASS;
}

SEC("xdp")
int refuse(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int reflect(struct xdp_md *ctx)
{
	return XDP_TX;
}

char LICENSE[] SEC("license") = "GPL";
