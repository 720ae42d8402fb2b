#include "both.h"

SEC("xdp") int program(struct xdp_md *ctx)
{
	BYTES(ctx, data, end);
	__u32 sum = 0, i = 0;

	for (i = 0; i < 20; i++) {
		if (data + i + 1 > end)
			break;
		if (data[i] == 0)
			continue;
		sum += data[i];
	}
	i = 0;
	while (i < 8 && sum > 3) {
		sum -= 3;
		i++;
	}
	do {
		sum ^= i;
		for (__u32 j = 0; j < 3; j++)
			if (sum & (1 << j))
				sum++;
		i++;
	} while (i < 4);
	return sum % 3;
}
