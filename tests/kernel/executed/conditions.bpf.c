#include "both.h"
#include "shared.h"

static __noinline int judge(__u8 a, __u8 b, __u8 c)
{
	if (a > 50 && b > 50) {
		seen[0] += 3;
		return 2;
	}
	if (a == 0 || b == 0 || c == 0)
		seen[1] ^= 4;
	else if (a == b)
		seen[2] -= 5;
	else
		seen[3] |= 6;
	if (!(a & 1))
		seen[4] *= 7;
	return c > 4;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);
	int verdict;

	if (data + 14 > end)
		return XDP_ABORTED;
	verdict = judge(data[0], data[1], data[2]);
	if (verdict == 2) {
		seen[5] += 3;
		count_small(data[3]);
	} else {
		seen[6] ^= 4;
		count_kind(data[4]);
	}
	return XDP_PASS;
}
