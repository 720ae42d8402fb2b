// SPDX-License-Identifier: MIT
// Measures how long a process sleeps in clock_nanosleep(2): a histogram by powers of two, in a per-CPU
// array.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 target_pid; // set before the program is loaded; other processes are not measured

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);   // thread
	__type(value, __u64); // when its call began, in nanoseconds
} began SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 64); // element n: calls that took 2^n to 2^(n+1) nanoseconds
	__type(key, __u32);
	__type(value, __u64);
} histogram SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_clock_nanosleep")
int enter(void *ctx)
{
	__u64 id = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();
	__u32 thread = id;

	if (id >> 32 == target_pid)
		bpf_map_update_elem(&began, &thread, &now, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_clock_nanosleep")
int leave(void *ctx)
{
	__u32 thread = bpf_get_current_pid_tgid();
	__u64 *start = bpf_map_lookup_elem(&began, &thread), *calls;
	__u32 slot = 0;

	if (!start)
		return 0;
	for (__u64 rest = bpf_ktime_get_ns() - *start; rest > 1 && slot < 63; rest >>= 1)
		slot++;
	calls = bpf_map_lookup_elem(&histogram, &slot);
	if (calls)
		*calls += 1; // this CPU has its own value
	return bpf_map_delete_elem(&began, &thread);
}

char LICENSE[] SEC("license") = "GPL";
