#include "both.h"
#include "shared.h"

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	count_small(data[0]);
	if (data[1] > 3) {
		seen[0] += 3;
		count_small(data[2]);
	}
	count_kind(data[3]);
	return XDP_PASS;
}
