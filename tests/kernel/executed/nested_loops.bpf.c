#include "both.h"

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);
	__u32 turns = 0;

	if (data + 14 > end)
		return XDP_ABORTED;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 4; i++) {
		seen[0] += 3;
#pragma clang loop unroll(disable)
		for (__u32 j = 0; j < 5; j++) {
			seen[1] ^= 4;
			if (data[j] == 0)
				continue;
			seen[2] -= 5;
			if (data[j] == 60)
				goto out;
			if (data[j] == 8)
				break;
			seen[3] |= 6;
		}
		if (data[i] < 3)
			seen[4] *= 7;
		else
			seen[5] += 3;
	}
	seen[6] ^= 4;
	do {
		seen[7] -= 5;
		if (data[5] & 1)
			break;
		seen[8] |= 6;
		turns++;
	} while (turns < 3);
out:
	seen[9] *= 7;
	return XDP_PASS;
}
