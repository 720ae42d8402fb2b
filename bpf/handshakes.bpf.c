// SPDX-License-Identifier: MIT
// Watches how TCP connections begin. The kernel calls a sockops program at certain points of a socket's
// life, for all sockets of a cgroup. This one sets how long a peer may stay silent, and reports each
// connection.
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SOL_TCP 6
#define TCP_USER_TIMEOUT 18

const volatile int patience; // milliseconds that data may stay unacknowledged; 0 changes nothing

struct event {
	__u32 local_port, remote_port;
	__u32 rtt; // microseconds, smoothed, of the handshake
	_Bool active; // whether this side called connect()
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

static void report(struct bpf_sock_ops *ctx)
{
	struct event event;

	// The padding, too: many kernels before 6.3 refuse to send bytes that nobody has set.
	__builtin_memset(&event, 0, sizeof(event));
	event.local_port = ctx->local_port;              // the kernel has it in this machine's byte order,
	event.remote_port = bpf_ntohl(ctx->remote_port); // and this one in the network's
	event.rtt = ctx->srtt_us >> 3;
	event.active = ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB;
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
}

SEC("sockops")
int handshakes(struct bpf_sock_ops *ctx)
{
	int timeout = patience;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB: // before the first packet, so the option is valid for all packets
		if (timeout)
			bpf_setsockopt(ctx, SOL_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		report(ctx);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
