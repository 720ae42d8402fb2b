// SPDX-License-Identifier: MIT
// Joins two interfaces into one cable: a packet that arrives at one leaves by the other, without the
// network stack between them. This tc program is attached to both.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, __u32);   // index of the interface where a packet arrives
	__type(value, __u32); // index of the interface where it leaves
} way_out SEC(".maps");

SEC("tc")
int cross_connect(struct __sk_buff *skb)
{
	__u32 from = skb->ifindex;
	__u32 *to = bpf_map_lookup_elem(&way_out, &from);

	return to ? bpf_redirect(*to, 0) : TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
