// SPDX-License-Identifier: MIT
// Counts in one of two maps. User space chooses the map, and reads the other one, which does not change
// meanwhile. Both are in an array of maps, whose slots are filled here.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sizes {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);   // a packet's size in bytes
	__type(value, __u64); // the number of packets of that size
} even SEC(".maps"), odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct sizes);
} generations SEC(".maps") = {.values = {&even, &odd}};

__u32 current; // the slot to count in

SEC("xdp")
int count_sizes(struct xdp_md *ctx)
{
	__u32 slot = current, size = ctx->data_end - ctx->data;
	__u64 zero = 0, *count;
	void *sizes = bpf_map_lookup_elem(&generations, &slot);

	if (!sizes)
		return XDP_ABORTED;
	bpf_map_update_elem(sizes, &size, &zero, BPF_NOEXIST);
	count = bpf_map_lookup_elem(sizes, &size);
	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
