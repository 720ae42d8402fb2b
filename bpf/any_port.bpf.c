// SPDX-License-Identifier: MIT
// Lets one listening socket serve a range of ports. When a connection arrives, the kernel asks a sk_lookup
// program which socket it is for. The program is attached to a network namespace.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 first_port = 7000, last_port = 7999;

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} server SEC(".maps"); // user space stores the socket here

SEC("sk_lookup")
int any_port(struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0;
	struct bpf_sock *socket;
	long refused;

	if (ctx->local_port < first_port || ctx->local_port > last_port)
		return SK_PASS; // the kernel finds the socket
	socket = bpf_map_lookup_elem(&server, &zero);
	if (!socket)
		return SK_DROP;
	refused = bpf_sk_assign(ctx, socket, 0);
	bpf_sk_release(socket); // a lookup in a map of sockets takes a reference
	return refused ? SK_DROP : SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
