#include "both.h"

static __noinline int mix(__u32 value)
{
	for (int i = 0; i < 10; i++) {
		if (value & 1)
			value = value * 3 + 1;
		else
			value /= 2;
	}
	return value & 1;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	return mix(data[0]) ? XDP_PASS : XDP_DROP;
}
