// Runs the native form: each argument is a packet, in hexadecimal digits.
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

struct xdp_md {
	unsigned long data, data_end;
};

int program(struct xdp_md *ctx);
static jmp_buf caller;
static int verdict;

void native_tail_call(struct xdp_md *ctx, int (*table[])(struct xdp_md *), unsigned int index)
{
	if (index > 1)
		return;
	verdict = table[index](ctx);
	longjmp(caller, 1);
}

long bpf_loop(unsigned int count, void *function, void *context, unsigned long long flags)
{
	long (*callback)(unsigned int, void *) = (long (*)(unsigned int, void *))function;
	unsigned int done = 0;

	while (done < count)
		if (callback(done++, context))
			break;
	return done;
}

int main(int count, char **packets)
{
	for (int i = 1; i < count; i++) {
		unsigned char packet[256];
		int size = 0;
		for (const char *digits = packets[i]; sscanf(digits, "%2hhx", &packet[size]) == 1; digits += 2)
			size++;
		struct xdp_md ctx = {(unsigned long)packet, (unsigned long)packet + size};
		if (!setjmp(caller))
			verdict = program(&ctx);
		printf("%d\n", verdict);
	}
	return 0;
}
