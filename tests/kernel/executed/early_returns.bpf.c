#include "both.h"

static __noinline int verdict_of(__u8 kind, __u8 flags)
{
	if (kind == 0)
		return seen[0] += 2, XDP_DROP;
	seen[1] ^= 4;
	if (kind > 100 || (flags & 1)) {
		seen[2] -= 5;
		return XDP_TX;
	}
	switch (flags) {
	case 2:
		seen[3] |= 6;
		return XDP_DROP;
	case 4:
		seen[4] *= 7;
		break;
	case 6:
	case 8:
		seen[5] += 3;
		return XDP_PASS;
	default:
		seen[6] ^= 4;
	}
	seen[7] -= 5;
	return XDP_PASS;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	int verdict = verdict_of(data[0], data[1]);
	if (verdict == XDP_TX) {
		seen[8] |= 6;
		return XDP_TX;
	} else {
		seen[9] *= 7;
	}
	return verdict;
}
