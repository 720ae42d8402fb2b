#include "both.h"

#ifdef NATIVE
static __u64 slot[3];
#define SLOT() slot
#else
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[3]);
} slots SEC(".maps");

static __always_inline __u64 *SLOT(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&slots, &zero);
}
#endif

SEC("xdp") int second(struct xdp_md *ctx)
{
	seen[0] += 3;
	return XDP_TX;
}
TABLE(table, (void *)&second, (void *)&second);

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);
	volatile __u64 *mine = SLOT();

	if (data + 14 > end || !mine)
		return XDP_ABORTED;
	mine[0] += 1;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 6; i++) {
		mine[0] ^= 4;
		if (data[i] & 1)
			mine[1] += 3;
		else
			mine[2] ^= 5;
	}
	if (data[0] > 3)
		bpf_tail_call(ctx, &table, 1);
	mine[0] |= 6;
	return XDP_PASS;
}
