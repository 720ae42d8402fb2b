// SPDX-License-Identifier: GPL-2.0
// Drops UDP packets to one port, and counts what it drops and passes.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

const volatile __u16 closed_port; // set before the program is loaded

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 5);
	__type(key, __u32);   // XDP_DROP, XDP_PASS
	__type(value, __u64); // how many packets
} verdicts SEC(".maps");

static int decide(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;

	// the length of the IP header, in words of 4 bytes, is in the header
	struct udphdr *udp = (void *)ip + ip->ihl * 4;
	if ((void *)(udp + 1) > end)
		return XDP_PASS;
	return udp->dest == bpf_htons(closed_port) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int filter(struct xdp_md *ctx)
{
	__u32 verdict = decide(ctx);
	__u64 *count = bpf_map_lookup_elem(&verdicts, &verdict);

	if (count)
		*count += 1;
	return verdict;
}

char LICENSE[] SEC("license") = "GPL";
