#include "both.h"

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);
	__u32 sum = 0, i;

	if (data + 14 > end)
		return XDP_ABORTED;
	for (i = 0; i < 8; i++) {
		if (data[i] == 9)
			break;
		if (data[i] == 0)
			continue;
		sum += data[i];
	}
	for (i = 0; i < 3; i++)
		for (__u32 j = 0; j < 2; j++)
			if (data[j] & 1)
				sum++;
	i = 0;
	do {
		if (data[i] > 4)
			sum++;
		i++;
	} while (i < 4);
	i = 4;
	while (i-- > 1)
		sum ^= data[i];
	return sum % 3;
}
