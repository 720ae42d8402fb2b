// SPDX-License-Identifier: MIT
// Counts the packets that leave a cgroup: for each of its sockets, and for the whole cgroup. The kernel
// removes each value together with its socket or cgroup, so nobody has to clean up.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct sent {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC); // the kernel requires this flag, and a key of type int
	__type(key, int);
	__type(value, struct sent);
} by_socket SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, struct sent);
} by_cgroup SEC(".maps");

SEC("cgroup_skb/egress")
int count(struct __sk_buff *skb)
{
	struct sent *all = bpf_get_local_storage(&by_cgroup, 0); // the value of the cgroup we are attached to

	__atomic_fetch_add(&all->packets, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&all->bytes, skb->len, __ATOMIC_RELAXED);

	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : 0;
	if (!sk)
		return 1;
	struct sent *own = bpf_sk_storage_get(&by_socket, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (own) {
		__atomic_fetch_add(&own->packets, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&own->bytes, skb->len, __ATOMIC_RELAXED);
	}
	return 1; // let it pass
}

char LICENSE[] SEC("license") = "GPL";
