// SPDX-License-Identifier: MIT
// Measures the time that threads spend in system calls. Start and sum are in task storage: the value
// belongs to the thread, and the kernel removes it with the thread. So a later thread with the same id gets
// its own value.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct spent {
	__u64 since; // when the call began, in nanoseconds since boot; 0 outside of calls
	__u64 total; // nanoseconds
	__u64 calls;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct spent);
} time_in_kernel SEC(".maps");

SEC("tp_btf/sys_enter")
int enter(void *ctx)
{
	// Without a flag that creates values, this measures only threads that user space gave a value.
	struct spent *spent = bpf_task_storage_get(&time_in_kernel, bpf_get_current_task_btf(), 0, 0);

	if (spent)
		spent->since = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sys_exit")
int leave(void *ctx)
{
	struct spent *spent = bpf_task_storage_get(&time_in_kernel, bpf_get_current_task_btf(), 0, 0);

	if (!spent || !spent->since)
		return 0;
	spent->total += bpf_ktime_get_ns() - spent->since;
	spent->calls += 1;
	spent->since = 0;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
