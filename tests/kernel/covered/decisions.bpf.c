#include "both.h"

#define BOTH(x, y) ((x) && (y))
#define IN_RANGE(x) (x > 2 && x < 100)

static __always_inline int inlined(__u32 x, __u32 y)
{
	return x > 5 || y > 5;
}

static __noinline int nested(__u32 x, __u32 y, __u32 z)
{
	if (!(x == y && y == z) || (x > 7 && !(z < 3)))
		return x && y ? 2 : 3;
	return 1;
}

// The verifier checks a function that is not static separately, so there are not too many paths.
__noinline int in_loop(__u32 x, __u32 y)
{
	int found = 0;

	for (__u32 i = 0; i < 4 && i < x; i++)
		if (y > i && (y & 1 || i > 2))
			found++;
	return found;
}

__noinline int macros(__u32 a, __u32 b, __u32 c, __u32 d)
{
	int found = 0;

	if (BOTH(a > 1, b) || d)
		found += 5;
	if (BOTH(a, d))
		found += 7;
	if (BOTH(b > 4, c > 4))
		found += 11;
	if (IN_RANGE(c) && IN_RANGE(d))
		found += inlined(a, b) + inlined(c, d);
	return found;
}

__noinline int plain(__u32 a, __u32 b, __u32 c, __u32 d)
{
	int found = 0;

	if (a && (b || (c && d)) && (a != b || c > d))
		found = 3;
	if (a &&
	    (b ||
	     !c))
		found += nested(a, b, c);
	_Bool kept = a == 5 || b == 7;
	if (found > 2 && !kept)
		found -= 2;
	return (found & 1 && kept) || c == 9 ? found : 4;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);

	if (data + 16 > end || data[12] == 99)
		return XDP_ABORTED;
	__u32 a = data[0], b = data[1], c = data[2], d = data[3];

	return (in_loop(a, b) + macros(a, b, c, d) + plain(a, b, c, d)) & 1 ? XDP_PASS : XDP_DROP;
}
