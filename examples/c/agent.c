// SPDX-License-Identifier: MIT
// The exec counter in C, with a skeleton of libbpf.
#include <bpf/libbpf.h>
#include <signal.h>
#include <stdio.h>

#include "exec_count.skel.h"

struct event {
	unsigned int pid;
	char comm[16];
};

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
	ended = 1;
}

static int print(void *context, void *data, size_t size)
{
	const struct event *event = data;

	printf("%u %s\n", event->pid, event->comm);
	fflush(stdout);
	return 0;
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct exec_count_bpf *counter = exec_count_bpf__open_and_load();
	struct ring_buffer *events;

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	if (!counter || exec_count_bpf__attach(counter))
		return 1;
	events = ring_buffer__new(bpf_map__fd(counter->maps.events), print, NULL, NULL);
	if (!events)
		return 1;
	while (!ended)
		ring_buffer__poll(events, 100);
	ring_buffer__free(events);
	exec_count_bpf__destroy(counter);
	return 0;
}
