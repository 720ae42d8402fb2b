// SPDX-License-Identifier: MIT
// Sends data that one socket receives out of another one, without waking any process. It uses two kinds of
// socket maps. The program is attached to one of them.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64); // 8 bytes, so that user space can read which sockets are in it
} receivers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 8);
	__type(key, __u32); // the local port of a receiver
	__type(value, __u64);
} senders SEC(".maps");

SEC("sk_skb/stream_verdict")
int echo(struct __sk_buff *skb)
{
	__u32 port = skb->local_port;

	return bpf_sk_redirect_hash(skb, &senders, &port, 0);
}

char LICENSE[] SEC("license") = "GPL";
