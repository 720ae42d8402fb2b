// Loads an object with libbpf, and runs its programs once for each byte of the argument.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>

int main(int count, char **arguments)
{
	struct bpf_object *object = bpf_object__open_file(arguments[1], NULL);
	struct bpf_program *program;
	unsigned char packet[16] = {};

	if (!object || bpf_object__load(object))
		return 1;
	bpf_object__for_each_program(program, object) {
		for (const char *at = arguments[2]; *at; at++) {
			LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet, .data_size_in = sizeof(packet));
			packet[0] = *at;
			if (bpf_prog_test_run_opts(bpf_program__fd(program), &options))
				return 2;
			printf("%u\n", options.retval);
		}
	}
	bpf_object__close(object);
	return 0;
}
