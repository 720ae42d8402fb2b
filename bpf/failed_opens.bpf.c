// SPDX-License-Identifier: MIT
// Reports which files a process could not open. Two programs share a hash map: the first knows the file's
// name, and the second knows the call's result.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

const volatile __u32 target_pid; // set before the programs are loaded

struct event {
	char path[128];
	int error; // a value of errno
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);         // thread
	__type(value, const char *); // the address of the file name in the process's memory
} asked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_openat")
int remember(struct trace_event_raw_sys_enter *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 thread = id;
	const char *path = (const char *)ctx->args[1];

	if (id >> 32 == target_pid)
		bpf_map_update_elem(&asked, &thread, &path, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_openat")
int report(struct trace_event_raw_sys_exit *ctx)
{
	__u32 thread = bpf_get_current_pid_tgid();
	const char **path = bpf_map_lookup_elem(&asked, &thread);
	struct event event = {.error = -ctx->ret};

	if (path && ctx->ret < 0) {
		bpf_probe_read_user_str(event.path, sizeof(event.path), *path);
		bpf_ringbuf_output(&events, &event, sizeof(event), 0);
	}
	bpf_map_delete_elem(&asked, &thread);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
