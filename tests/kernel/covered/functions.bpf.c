#include "both.h"
#include "helpers.h"

static __noinline __u32 square(__u32 x)
{
	if (!x)
		return 7;
	return x * x;
}

__noinline int scale(__u32 x, __u32 y)
{
	if (y > 3)
		return x;
	return square(x) + square(y);
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	int kind = in_header(data[0]);
	if (kind > 1)
		kind += in_header(data[1]);
	return (scale(data[2], data[3]) + kind) & 1 ? XDP_PASS : XDP_DROP;
}
