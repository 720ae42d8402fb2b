// SPDX-License-Identifier: MIT
// Counts executed programs by name, and sends an event for each.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct event {
	__u32 pid;
	char comm[16]; // the name of the process after exec
};

struct event *keeps_the_type; // in BTF, for user space

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, char[16]);
	__type(value, __u64);
} exec_count SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");

SEC("tracepoint/sched/sched_process_exec")
int trace_exec(void *ctx)
{
	struct event event = {.pid = bpf_get_current_pid_tgid() >> 32};
	__u64 one = 1, *count;

	bpf_get_current_comm(event.comm, sizeof(event.comm));
	count = bpf_map_lookup_elem(&exec_count, event.comm);
	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	else
		bpf_map_update_elem(&exec_count, event.comm, &one, BPF_NOEXIST);
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
