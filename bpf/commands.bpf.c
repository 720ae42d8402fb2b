// SPDX-License-Identifier: MIT
// Takes commands from user space. A user ring buffer is a ring buffer in the other direction. The program
// reads all commands each time it runs, here for each packet.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum operation { ADD, SUBTRACT };

struct command {
	enum operation operation;
	__u32 amount;
};

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096); // bytes
} commands SEC(".maps");

__s64 balance;
__u64 done;

static long obey(struct bpf_dynptr *record, void *context)
{
	struct command *command = bpf_dynptr_data(record, 0, sizeof(*command));

	if (!command)
		return 0; // the record is too short: continue with the next one
	if (command->operation == ADD)
		balance += command->amount;
	else
		balance -= command->amount;
	done++;
	return 0; // 1 would leave the rest in the buffer
}

SEC("xdp")
int drain(struct xdp_md *ctx)
{
	bpf_user_ringbuf_drain(&commands, obey, 0, 0);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
