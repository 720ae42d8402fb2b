// SPDX-License-Identifier: MIT
// Reports which host names a process looks up. One uprobe is at the entry of the C library's getaddrinfo,
// and one at its return. User space names the library and the function when it attaches them.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

const volatile __u32 target_pid; // set before the program is loaded

struct event {
	char name[64];
	int result; // 0, or one of EAI_*
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);           // thread
	__type(value, struct event);  // the name that it looks up now
} asked SEC(".maps");

SEC("uprobe")
int BPF_KPROBE(getaddrinfo_enter, const char *name)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct event event = {};

	if (bpf_get_current_pid_tgid() >> 32 != target_pid)
		return 0;
	bpf_probe_read_user_str(event.name, sizeof(event.name), name);
	bpf_map_update_elem(&asked, &thread, &event, BPF_ANY);
	return 0;
}

SEC("uretprobe")
int BPF_KRETPROBE(getaddrinfo_return, int result)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct event *event = bpf_map_lookup_elem(&asked, &thread);

	if (!event)
		return 0;
	event->result = result;
	bpf_ringbuf_output(&events, event, sizeof(*event), 0);
	bpf_map_delete_elem(&asked, &thread);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
