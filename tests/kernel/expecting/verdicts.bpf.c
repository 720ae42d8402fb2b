/* Collected by bpf_collect: each program is a test, on each kernel. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpfmaps_expect.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

SEC("socket")
__description("a program without privileges, too") __success __success_unpriv __retval(50)
/* of the 64 bytes 14 are the Ethernet header */
int length(struct __sk_buff *skb)
{
	return skb->len;
}

SEC("xdp")
__failure __msg("invalid access to packet") __msg("R{{[0-9]+}} {{(offset|min value)}} is outside of the")
__not_msg("no such message")
int reads_too_far(struct xdp_md *ctx)
{
	return *(int *)(long)ctx->data;
}

SEC("socket")
__success __failure_unpriv __msg_unpriv("R{{[0-9]}} leaks addr") __retval(0)
int leaks_an_address(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&counts, &key);

	if (count)
		*count = (__u64)count;
	return 0;
}

SEC("xdp")
__log_level(2) __flag(BPF_F_TEST_STATE_FREQ) __success __msg("processed {{[0-9]+}} insns")
int talks(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
__success __retval(-1)
int is_negative(struct xdp_md *ctx)
{
	return -1;
}

SEC("xdp")
__auxiliary
int helps(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
__arch_s390x __failure
int elsewhere(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("syscall")
__success __retval(7)
int runs_by_itself(void *ctx)
{
	return 7;
}

char LICENSE[] SEC("license") = "GPL";
