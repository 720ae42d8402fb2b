// SPDX-License-Identifier: MIT
// Counts bytes by cgroup, in each direction. The programs are attached to a cgroup. They run for the
// sockets of all processes in it and below it.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct traffic {
	__u64 sent, received; // bytes, IP headers included
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); // id of the cgroup: the inode number of its folder
	__type(value, struct traffic);
} by_cgroup SEC(".maps");

static struct traffic *traffic_of(struct __sk_buff *skb)
{
	// This is the socket's cgroup. "current" is no help: it is the process that the packet interrupts.
	__u64 id = bpf_skb_cgroup_id(skb);
	struct traffic *found = bpf_map_lookup_elem(&by_cgroup, &id), none = {};

	if (found)
		return found;
	bpf_map_update_elem(&by_cgroup, &id, &none, BPF_NOEXIST); // another CPU may be first
	return bpf_map_lookup_elem(&by_cgroup, &id);
}

SEC("cgroup_skb/egress")
int count_sent(struct __sk_buff *skb)
{
	struct traffic *traffic = traffic_of(skb);

	if (traffic)
		__atomic_fetch_add(&traffic->sent, skb->len, __ATOMIC_RELAXED);
	return 1; // let it pass
}

SEC("cgroup_skb/ingress")
int count_received(struct __sk_buff *skb)
{
	struct traffic *traffic = traffic_of(skb);

	if (traffic)
		__atomic_fetch_add(&traffic->received, skb->len, __ATOMIC_RELAXED);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
