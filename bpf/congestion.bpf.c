// SPDX-License-Identifier: MIT
// Adds a TCP congestion control to the kernel. struct_ops programs are the functions of a struct that the
// kernel defines. This one keeps the window at a fixed size, and counts the connections that use it.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct sock; // the kernel defines it

// These are the members that we set, with their types in the kernel. vmlinux.h has all members of one
// kernel, and libbpf before 1.5 refuses the struct when another kernel lacks one of them.
struct tcp_congestion_ops {
	void (*init)(struct sock *sk);
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
};

#define WINDOW 16 // packets

__u64 connections;

SEC("struct_ops/fixed_init")
void BPF_PROG(fixed_init, struct sock *sk)
{
	__atomic_fetch_add(&connections, 1, __ATOMIC_RELAXED);
}

// The kernel requires these three: the window after a loss, its growth, and the window after a false alarm.
SEC("struct_ops/fixed_ssthresh")
__u32 BPF_PROG(fixed_ssthresh, struct sock *sk)
{
	return WINDOW;
}

SEC("struct_ops/fixed_cong_avoid")
void BPF_PROG(fixed_cong_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}

SEC("struct_ops/fixed_undo_cwnd")
__u32 BPF_PROG(fixed_undo_cwnd, struct sock *sk)
{
	return WINDOW;
}

SEC(".struct_ops")
struct tcp_congestion_ops fixed_window = {
	.init = (void *)fixed_init,
	.ssthresh = (void *)fixed_ssthresh,
	.cong_avoid = (void *)fixed_cong_avoid,
	.undo_cwnd = (void *)fixed_undo_cwnd,
	.name = "bpfmaps_fixed",
};

char LICENSE[] SEC("license") = "GPL";
