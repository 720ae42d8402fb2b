// SPDX-License-Identifier: MIT
// Counts system calls of each process, in a value that belongs to the process. It also counts the calls of
// all processes in a chosen cgroup and below it.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct task_struct; // only its address is used

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} by_process SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} chosen SEC(".maps");

__u64 inside; // calls from the chosen cgroup

SEC("raw_tp/sys_enter")
int count(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 *calls = bpf_task_storage_get(&by_process, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (calls)
		__atomic_fetch_add(calls, 1, __ATOMIC_RELAXED);
	if (bpf_current_task_under_cgroup(&chosen, 0) == 1) // the result is less than 0 for an empty slot
		__atomic_fetch_add(&inside, 1, __ATOMIC_RELAXED);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
