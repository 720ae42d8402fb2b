// The same C as a BPF program and as a native program. gcov tells the counts of the native one.
//
// Machine code is counted, and a compiler that optimizes merges and removes lines. It keeps each access to a `volatile`
// variable, but it merges branches that make the same access.
#pragma once

#ifdef NATIVE
typedef unsigned char __u8;
typedef unsigned int __u32;
typedef unsigned long long __u64;
struct xdp_md {
	unsigned long data, data_end;
};
enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };
#define SEC(name)
#define __noinline __attribute__((noinline))
long bpf_loop(__u32 count, void *function, void *context, __u64 flags);
void native_tail_call(struct xdp_md *ctx, int (*function)(struct xdp_md *));
#define TAIL_CALL(ctx, function) native_tail_call(ctx, function)
#else
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define TAIL_CALL(ctx, function) bpf_tail_call(ctx, &table, AT_##function)
char LICENSE[] SEC("license") = "GPL";
#endif

static volatile __u64 seen[16];

#define BYTES(ctx, data, end) __u8 *data = (__u8 *)(long)(ctx)->data, *end = (__u8 *)(long)(ctx)->data_end
