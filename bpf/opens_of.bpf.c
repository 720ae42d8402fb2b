// SPDX-License-Identifier: MIT
// Counts how often a file is opened, whatever name is used. The count is in a value that belongs to the
// file.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} opens SEC(".maps");

SEC("lsm/file_open")
int BPF_PROG(count, struct file *file)
{
	// Without a flag that creates values, this counts only files that user space gave a value.
	__u64 *times = bpf_inode_storage_get(&opens, file->f_inode, 0, 0);

	if (times)
		__atomic_fetch_add(times, 1, __ATOMIC_RELAXED);
	return 0; // allow it
}

char LICENSE[] SEC("license") = "GPL";
