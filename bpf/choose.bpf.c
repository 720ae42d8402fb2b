// SPDX-License-Identifier: MIT
// Decides which of several sockets gets a packet when they share a port (SO_REUSEPORT). This program
// decides by the packet's first byte. Without a program the kernel decides by a hash of the addresses.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64); // 8 bytes, so that user space can read which sockets are in it
} workers SEC(".maps");

SEC("sk_reuseport")
int choose(struct sk_reuseport_md *md)
{
	void *data = md->data + 8; // after the UDP header

	if (data + 1 > md->data_end)
		return SK_DROP;
	__u32 worker = *(__u8 *)data;

	if (bpf_sk_select_reuseport(md, &workers, &worker, 0))
		return SK_DROP; // there is no such worker
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
