// SPDX-License-Identifier: MIT
// Counts packets and bytes by IP protocol in a per-CPU array, and sends an event for each packet that is
// too large. An XDP program: it runs for every packet that a network interface receives.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct traffic { __u64 packets, bytes; };
struct event { __u32 size; __u8 protocol; };

const volatile __u32 size_limit = 1500; // bytes; set before the program is loaded
__u64 ignored;                          // packets that are not IPv4

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256); // one for each IP protocol
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

SEC("xdp")
int count_packets(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);

	// The verifier requires a check that the headers are inside the packet before they are read.
	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP)) {
		__atomic_fetch_add(&ignored, 1, __ATOMIC_RELAXED);
		return XDP_PASS;
	}

	__u32 protocol = ip->protocol, size = end - data;
	struct traffic *seen = bpf_map_lookup_elem(&traffic, &protocol);
	if (!seen)
		return XDP_PASS;
	seen->packets += 1; // each CPU has its own element, so plain addition loses nothing
	seen->bytes += size;

	if (size > size_limit) {
		struct event event;
		// The padding, too: many kernels before 6.3 refuse to send bytes that nobody has set.
		__builtin_memset(&event, 0, sizeof(event));
		event.size = size;
		event.protocol = protocol;
		bpf_ringbuf_output(&events, &event, sizeof(event), 0);
		return XDP_DROP;
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
