#include "both.h"

static __attribute__((always_inline)) inline void count_large(__u8 value)
{
	if (value > 50)
		seen[0] += 3;
}

static __noinline int below(__u32 value)
{
	seen[1] ^= 4;
	if (value > 8)
		seen[2] -= 5;
	return value & 1;
}

__noinline int global_function(int one, int other)
{
	seen[3] |= 6;
	return below(one) + below(other);
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	count_large(data[0]);
	count_large(data[1]);
	int odd = global_function(data[2], data[3]);
	if (odd == 2)
		seen[4] *= 7;
	else
		seen[5] += 3;
	return XDP_PASS;
}
