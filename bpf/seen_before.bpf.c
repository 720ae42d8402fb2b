// SPDX-License-Identifier: MIT
// Counts packets of known clients. A bloom filter recognizes most unknown clients, so the program looks up
// only clients that are probably in the hash.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 1000);
	__type(value, __u32); // an address, in network byte order
} maybe_known SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1000);
	__type(key, __u32);
	__type(value, __u64); // packets
} clients SEC(".maps");

__u64 strangers; // packets of clients that the filter does not know

SEC("xdp")
int count(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	__u32 source = ip->saddr;

	if (bpf_map_peek_elem(&maybe_known, &source)) { // not 0: the address was certainly never pushed
		__atomic_fetch_add(&strangers, 1, __ATOMIC_RELAXED);
		return XDP_PASS;
	}
	__u64 *packets = bpf_map_lookup_elem(&clients, &source);
	if (packets) // NULL: the filter said yes by accident
		__atomic_fetch_add(packets, 1, __ATOMIC_RELAXED);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
