#include "both.h"

SEC("xdp") int large(struct xdp_md *ctx)
{
	seen[0] += 3;
	return XDP_TX;
}

SEC("xdp") int odd(struct xdp_md *ctx);
TABLE(table, (void *)&odd, (void *)&large);

SEC("xdp") int odd(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	seen[1] ^= 4;
	if (data[1] > 7)
		bpf_tail_call(ctx, &table, 1);
	seen[2] -= 5;
	return XDP_PASS;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	seen[3] |= 6;
	if (data[0] > 1)
		bpf_tail_call(ctx, &table, 0);
	seen[4] *= 7;
	return XDP_DROP;
}
