#include "both.h"

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);
	__u32 state = 0, at = 0;

	if (data + 14 > end)
		return XDP_ABORTED;
	switch (data[0]) {
	case 0:
		state = 1;
		break;
	case 1:
		state = 2;
	case 2:
	case 3:
		state += 3;
		break;
	case 4 ... 9:
		return XDP_TX;
	default:
		state = data[1];
	}
again:
	if (at >= 4)
		goto out;
	at++;
	if (state & 1)
		goto again;
	state++;
	if (at < 3)
		goto again;
out:
	return state & 1 ? XDP_PASS : XDP_DROP;
}
