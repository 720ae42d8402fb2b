#include "both.h"

struct state {
	__u32 stop, sum;
};

static int step(__u32 index, void *context)
{
	struct state *state = context;

	seen[0] += 3;
	if (index == state->stop)
		return 1;
	if (index % 3 == 0)
		seen[1] ^= 4;
	else
		seen[2] -= 5;
	state->sum++;
	return 0;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);
	struct state state = {};

	if (data + 14 > end)
		return XDP_ABORTED;
	state.stop = data[0] & 15;
	bpf_loop(data[1] & 31, step, &state, 0);
	if (state.sum > 7)
		seen[3] |= 6;
	return XDP_PASS;
}
