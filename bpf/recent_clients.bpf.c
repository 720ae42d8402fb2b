// SPDX-License-Identifier: MIT
// Remembers clients that were seen recently. A full LRU hash removes the elements that were not used for
// the longest time. So an update never fails, and nobody has to clean up. Bytes are counted per CPU.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);   // the client's address, in network byte order
	__type(value, __u64); // when its last packet came, in nanoseconds since boot
} last_seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} bytes SEC(".maps");

SEC("xdp")
int remember(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	__u64 now = bpf_ktime_get_ns(), size = end - data, *seen;
	__u32 client;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	client = ip->saddr;
	bpf_map_update_elem(&last_seen, &client, &now, BPF_ANY);
	seen = bpf_map_lookup_elem(&bytes, &client);
	if (seen)
		*seen += size;
	else
		bpf_map_update_elem(&bytes, &client, &size, BPF_ANY);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
