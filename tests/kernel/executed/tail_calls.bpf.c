#include "both.h"

#ifndef NATIVE
enum { AT_odd, AT_large };
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, int(struct xdp_md *));
} table SEC(".maps");
#endif

SEC("xdp") int large(struct xdp_md *ctx)
{
	seen[0] += 3;
	return XDP_TX;
}

SEC("xdp") int odd(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	seen[1] ^= 4;
	if (data[1] > 50)
		TAIL_CALL(ctx, large);
	seen[2] -= 5;
	return XDP_PASS;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	seen[3] |= 6;
	if (data[0] & 1)
		TAIL_CALL(ctx, odd);
	seen[4] *= 7;
	return XDP_DROP;
}
