#include "both.h"

static int look(const __u8 *data, const __u8 *end)
{
	if (data + 14 > end)
		return XDP_ABORTED;
	if (data[12] != 8)
		return XDP_PASS;
	if (data[13] == 6) {
		if (data[0] & 1)
			return XDP_DROP;
		return XDP_TX;
	}
	return data[1] ? XDP_DROP : XDP_PASS;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	int verdict = look(data, end);
	if (verdict == XDP_TX)
		return XDP_PASS;
	return verdict;
}
