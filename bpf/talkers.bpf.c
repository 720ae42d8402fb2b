// SPDX-License-Identifier: MIT
// Counts packets and bytes of each pair of addresses in a per-CPU hash. Every CPU has its own value of each
// element, so CPUs do not wait for one another. User space adds the values up.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>

struct pair {
	__u8 from[4], to[4];
};

struct traffic {
	__u64 packets, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pair);
	__type(value, struct traffic);
} talkers SEC(".maps");

SEC("xdp")
int count_talkers(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct traffic *seen, first = {.packets = 1, .bytes = end - data};
	struct pair pair;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	__builtin_memcpy(&pair, &ip->saddr, sizeof(pair)); // the destination follows the source
	seen = bpf_map_lookup_elem(&talkers, &pair);
	if (!seen) {
		bpf_map_update_elem(&talkers, &pair, &first, BPF_ANY); // the other CPUs' values are zero
		return XDP_PASS;
	}
	seen->packets += 1;
	seen->bytes += end - data;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
