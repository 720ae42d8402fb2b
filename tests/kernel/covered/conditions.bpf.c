#include "both.h"

#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 14 > end)
		return XDP_ABORTED;
	__u32 a = data[0], b = data[1], c = data[2];

	if ((a > 4 && b < 9) || (c != 3 && !(a == b)))
		a = SMALLER(b, c);
	else if (a || (b && c))
		b = a ? b ? 1 : 2 : c ? 3
				      : 4;
	return (a + b) & 1 && c ? XDP_PASS : XDP_DROP;
}
