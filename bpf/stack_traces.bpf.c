// SPDX-License-Identifier: MIT
// Counts from which code a process opens files: by its stack in the kernel and its stack in user space.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MOST_FRAMES 32

const volatile __u32 traced; // the process to watch; set before the program is loaded

// Each value is a row of addresses. bpf_get_stackid() stores a stack here and returns its number, a hash.
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16384);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, MOST_FRAMES * sizeof(__u64));
} stacks SEC(".maps");

// The numbers are signed. Numbers below zero are errors: -EEXIST when two stacks have the same hash.
struct origin {
	__s32 kernel_stack;
	__s32 user_stack;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct origin);
	__type(value, __u64); // how many times
} origins SEC(".maps");

SEC("kprobe/do_sys_openat2")
int count_origin(void *ctx)
{
	struct origin origin;
	__u64 one = 1, *count;

	if (bpf_get_current_pid_tgid() >> 32 != traced)
		return 0;
	origin.kernel_stack = bpf_get_stackid(ctx, &stacks, 0);
	origin.user_stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);

	count = bpf_map_lookup_elem(&origins, &origin);
	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	else
		bpf_map_update_elem(&origins, &origin, &one, BPF_NOEXIST);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
