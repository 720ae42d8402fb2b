// Runs the native form: packets of 16 bytes come from stdin.
#include <setjmp.h>
#include <stdio.h>

struct xdp_md {
	unsigned long data, data_end;
};

int program(struct xdp_md *ctx);
static jmp_buf caller;

void native_tail_call(struct xdp_md *ctx, int (*function)(struct xdp_md *))
{
	printf("%d\n", function(ctx));
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

int main(void)
{
	unsigned char packet[16];

	while (fread(packet, 1, sizeof(packet), stdin) == sizeof(packet)) {
		struct xdp_md ctx = {(unsigned long)packet, (unsigned long)packet + sizeof(packet)};
		if (!setjmp(caller))
			printf("%d\n", program(&ctx));
	}
	return 0;
}
