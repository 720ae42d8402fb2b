#pragma once

static __always_inline int in_header(__u32 value)
{
	if (value > 100)
		return 3;
	return value > 10 ? 2 : 1;
}
