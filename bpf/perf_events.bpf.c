// SPDX-License-Identifier: MIT
// Sends an event through the perf buffers for every packet. Perf buffers are older than ring buffers (Linux
// 5.8).
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct event {
	__u64 timestamp; // nanoseconds since boot
	__u32 cpu;
	__u32 size;      // of the packet, in bytes
};

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} events SEC(".maps"); // one buffer for each CPU; user space makes them

SEC("xdp")
int report_packet(struct xdp_md *ctx)
{
	struct event event = {
		.timestamp = bpf_ktime_get_ns(),
		.cpu = bpf_get_smp_processor_id(),
		.size = ctx->data_end - ctx->data,
	};

	// This writes to this CPU's buffer. An error means that nobody listens, or that the buffer is full.
	return bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &event, sizeof(event)) ? XDP_ABORTED : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
