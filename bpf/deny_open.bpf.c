// SPDX-License-Identifier: MIT
// Forbids one process to open files of a name, and counts the attempts. It is a security module made of
// BPF. The kernel asks it after its own permission checks. The first module that says no decides.
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define EPERM 1 // vmlinux.h has no macros of the kernel

const volatile __u32 target_pid; // set before the program is loaded
const volatile char forbidden[32];

__u32 attempts;

SEC("lsm/file_open")
int BPF_PROG(deny_open, struct file *file)
{
	char name[sizeof(forbidden)] = {};

	if (bpf_get_current_pid_tgid() >> 32 != target_pid)
		return 0;
	bpf_core_read_str(name, sizeof(name), file->f_path.dentry->d_name.name);
	for (int i = 0; i < sizeof(name); i++) {
		if (name[i] != forbidden[i])
			return 0;
		if (!name[i])
			break;
	}
	__atomic_fetch_add(&attempts, 1, __ATOMIC_RELAXED);
	return -EPERM;
}

char LICENSE[] SEC("license") = "GPL";
