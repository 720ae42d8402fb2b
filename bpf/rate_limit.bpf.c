// SPDX-License-Identifier: MIT
// Counts the packets of each client in its own inner map of a hash of maps. User space replaces an inner
// map by a new one to set all counts of a client to zero in one step, while packets arrive.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>

const volatile __u64 limit = 3; // packets per client and protocol

struct counts {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256); // by IP protocol
	__type(key, __u32);
	__type(value, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 64);
	__type(key, __u32); // the client's address, in network byte order
	__array(values, struct counts);
} clients SEC(".maps");

SEC("xdp")
int rate_limit(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	__u32 source = ip->saddr, protocol = ip->protocol;

	void *counts = bpf_map_lookup_elem(&clients, &source);
	if (!counts)
		return XDP_PASS; // nobody limits this client
	__u64 *seen = bpf_map_lookup_elem(counts, &protocol);
	if (!seen)
		return XDP_PASS;
	// The check and the addition are two steps: an addition returns the old value only since Linux 5.12.
	int action = *seen < limit ? XDP_PASS : XDP_DROP;
	__atomic_fetch_add(seen, 1, __ATOMIC_RELAXED);
	return action;
}

char LICENSE[] SEC("license") = "GPL";
