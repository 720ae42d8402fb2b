#include "both.h"

static __noinline int parity(__u32 value)
{
	int ones = 0;

	for (int i = 0; i < 8; i++)
		if (value & (1 << i))
			ones++;
	return ones & 1;
}

SEC("xdp") int first(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	if (parity(data[1]))
		return XDP_TX;
	return XDP_DROP;
}

SEC("xdp") int second(struct xdp_md *ctx);
TABLE(table, (void *)&first, (void *)&second);

SEC("xdp") int second(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	__u32 choice = data[2]; // behind the call Linux 6.12 assumes that the packet has changed
	if (choice == 5)
		bpf_tail_call(ctx, &table, 0);
	return choice > 5 ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	if (data[0] < 3)
		bpf_tail_call(ctx, &table, data[0]);
	return XDP_PASS;
}
