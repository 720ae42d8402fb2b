#include "both.h"

struct state {
	__u32 sum, limit;
};

static int step(__u32 index, void *context)
{
	struct state *state = context;

	if (state->sum > state->limit)
		return 1;
	if (index % 3 == 0)
		state->sum += 2;
	else
		state->sum++;
	return 0;
}

static int count_odd(__u32 index, void *context)
{
	__u32 *odd = context;

	*odd += index & 1 ? 1 : 0;
	return 0;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);
	struct state state = {};
	__u32 odd = 0;

	if (data + 14 > end)
		return XDP_ABORTED;
	// Before Linux 6.7 the verifier follows a callback only once. It must not know these values: it would remove branches.
	state.sum = data[3];
	state.limit = data[0];
	bpf_loop(data[1], step, &state, 0);
	if (data[2])
		bpf_loop(data[2] & 15, count_odd, &odd, 0);
	return state.sum + odd > 20 ? XDP_PASS : XDP_DROP;
}
