// SPDX-License-Identifier: MIT
// Drops UDP packets to one port before the network stack sees them, and counts its verdicts. An XDP
// program.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

const volatile __u16 closed_port; // set before the program is loaded

enum verdict { PASSED, DROPPED, VERDICTS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

static int decide(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
		return PASSED;

	// The IP header may have options. It contains its own length, in words.
	struct udphdr *udp = (void *)ip + ip->ihl * 4;
	if ((void *)(udp + 1) > end)
		return PASSED;
	return udp->dest == bpf_htons(closed_port) ? DROPPED : PASSED;
}

SEC("xdp")
int drop_port(struct xdp_md *ctx)
{
	__u32 verdict = decide(ctx);
	__u64 *count = bpf_map_lookup_elem(&packets, &verdict);

	if (count)
		*count += 1;
	return verdict == DROPPED ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
