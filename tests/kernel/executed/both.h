// The same C as a BPF program and as a native program. llvm-cov tells the counts of the native one.
//
// Machine code is counted, and a compiler that optimizes merges and removes lines. It keeps each access to a `volatile`
// variable, but it merges branches that make the same access.
#pragma once

#include "../covered/both.h"

#ifdef NATIVE
#undef bpf_tail_call // a longjmp() would leave the lines behind it with the count of those before
#define bpf_tail_call(ctx, table, index)                                                                     \
	do {                                                                                                 \
		if ((index) < 2)                                                                             \
			return (*(table))[index](ctx);                                                       \
	} while (0)
#endif

static volatile __u64 seen[16];
