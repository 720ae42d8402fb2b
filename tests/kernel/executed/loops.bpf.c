#include "both.h"

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 9; i++) {
		seen[0] += 3;
		if (data[i] == 0)
			continue;
		seen[1] ^= 4;
		if (data[i] == 6)
			break;
		seen[2] -= 5;
	}
	__u32 turns = 0;
	while (seen[2] & 1) {
		seen[3] |= 6;
		if (++turns > 3)
			break;
		seen[2] += seen[4] & 1;
	}
	do {
		seen[4] *= 7;
		turns++;
	} while (turns < 5);
	seen[5] += 3;
	return XDP_PASS;
}
