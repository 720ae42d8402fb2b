#include "both.h"

SEC("xdp") int program(struct xdp_md *ctx)
{
	seen[0] += 3;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 20; i++) {
		__sync_fetch_and_add(&seen[1], 1);
		if (i & 1)
			__sync_fetch_and_add(&seen[2], 3);
	}
	return XDP_PASS;
}
