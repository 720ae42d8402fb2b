// Code in a header, which several programs use.
#pragma once

static __always_inline void count_small(__u8 value)
{
	seen[10] += 3;
	if (value < 5)
		seen[11] ^= 4;
}

static __noinline int count_kind(__u8 value)
{
	switch (value) {
	case 0:
		seen[12] -= 5;
		break;
	case 1:
	case 2:
		seen[13] |= 6;
		return 1;
	default:
		seen[14] *= 7;
	}
	seen[15] += 9;
	return 0;
}
