// The same C as a BPF program and as a native program. llvm-cov tells the counts of the native one.
#pragma once

#ifdef NATIVE
typedef unsigned char __u8;
typedef unsigned int __u32;
typedef unsigned long long __u64;
struct xdp_md {
	unsigned long data, data_end;
};
enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };
#define SEC(name) __attribute__((used))
#define __noinline __attribute__((noinline))
#define __always_inline inline __attribute__((always_inline))
#define TABLE(name, first, second) int (*name[])(struct xdp_md *) = {first, second}
void native_tail_call(struct xdp_md *ctx, int (*table[])(struct xdp_md *), __u32 index);
#define bpf_tail_call(ctx, table, index) native_tail_call(ctx, *(table), index)
long bpf_loop(__u32 count, void *function, void *context, __u64 flags);
#else
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define TABLE(name, first, second)                                                                           \
	struct {                                                                                             \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                       \
		__uint(max_entries, 2);                                                                      \
		__uint(key_size, 4);                                                                         \
		__array(values, int(struct xdp_md *));                                                       \
	} name SEC(".maps") = {.values = {first, second}}
char LICENSE[] SEC("license") = "GPL";
#endif

#define BYTES(ctx, data, end) __u8 *data = (__u8 *)(long)(ctx)->data, *end = (__u8 *)(long)(ctx)->data_end
