// SPDX-License-Identifier: MIT
// Counts the openat(2) system calls of each process, in a hash map from process id to count.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);   // process id; user space calls it a pid, and the kernel a tgid
	__type(value, __u64); // how many times it called openat
} process_count SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_openat")
int count_openat(void *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 zero = 0;

	// Two CPUs may see a process' first calls at once: only one of them creates the element ...
	bpf_map_update_elem(&process_count, &pid, &zero, BPF_NOEXIST);

	// ... and both add to it atomically, so that no call is lost.
	__u64 *count = bpf_map_lookup_elem(&process_count, &pid);
	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
