// SPDX-License-Identifier: MIT
// Forwards packets before the network stack sees them: out of another interface, to another CPU, or to a
// program in user space (AF_XDP). Each kind of target has its own map, which user space fills.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32); // an interface's index
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__type(key, __u32);   // a CPU
	__type(value, __u32); // how many packets may wait for it
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 8);
	__type(key, __u32); // a receive queue
	__type(value, __u32);
} sockets SEC(".maps");

SEC("xdp")
int forward(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	// The last argument is the result when the map has no element with that key.
	switch (ip->protocol) {
	case IPPROTO_UDP:
		return bpf_redirect_map(&ports, 1, XDP_PASS);
	case IPPROTO_TCP:
		return bpf_redirect_map(&cpus, 0, XDP_PASS);
	default:
		return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
	}
}

char LICENSE[] SEC("license") = "GPL";
