// SPDX-License-Identifier: MIT
// The agent: it loads the BPF object that is named on the command line, and prints the events.
#include <bpf/libbpf.h>
#include <signal.h>
#include <stdio.h>

struct event {
	unsigned int pid;
	char comm[16];
};

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
	ended = 1;
}

static int print_event(void *context, void *data, size_t size)
{
	const struct event *event = data;

	printf("%u %s\n", event->pid, event->comm);
	fflush(stdout);
	return 0;
}

static struct bpf_link *load(const char *path, struct ring_buffer **events)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_link *link;

	if (!object || bpf_object__load(object))
		return NULL;
	link = bpf_program__attach(bpf_object__find_program_by_name(object, "trace_exec"));
	*events = ring_buffer__new(bpf_object__find_map_fd_by_name(object, "events"), print_event, NULL, NULL);
	return *events ? link : NULL;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct ring_buffer *events;
	struct bpf_link *link;

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	if (argc != 2) {
		fprintf(stderr, "usage: %s OBJECT\n", argv[0]);
		return 2;
	}
	link = load(argv[1], &events);
	if (!link)
		return 1; // libbpf has printed why
	printf("ready\n");
	fflush(stdout);
	while (!ended)
		ring_buffer__poll(events, 100);
	bpf_link__destroy(link);
	ring_buffer__free(events);
	return 0;
}
