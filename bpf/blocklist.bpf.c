// SPDX-License-Identifier: MIT
// Drops packets from listed networks. The list is a longest prefix match trie, as in a router: the most
// specific entry wins. So one address of a blocked network can be allowed.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct network {
	__u32 prefixlen; // in bits; this field must be the first
	__u8 address[4]; // most significant byte first, as in the packet
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC); // the kernel requires this flag: a trie grows as it is filled
	__uint(max_entries, 1024);
	__type(key, struct network);
	__type(value, __u32); // XDP_DROP or XDP_PASS
} networks SEC(".maps");

SEC("xdp")
int filter(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct network source = {.prefixlen = 32};

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	__builtin_memcpy(source.address, &ip->saddr, sizeof(source.address));

	__u32 *action = bpf_map_lookup_elem(&networks, &source);
	return action ? *action : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
