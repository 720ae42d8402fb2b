// A loader that does what its arguments say, in order. It stands for the agents that people ship.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct bpf_object *object;
static struct bpf_link *last;
static int last_fd;
static struct ring_buffer *ring;
static char **next;

static char *word(void)
{
	if (!*next)
		exit(64);
	return *next++;
}

static void need(long result)
{
	if (result < 0) {
		fprintf(stderr, "agent: %s: %s\n", next[-1], strerror(-result));
		exit(65);
	}
}

static struct bpf_program *program(void)
{
	struct bpf_program *found = bpf_object__find_program_by_name(object, word());

	need(found ? 0 : -2);
	return found;
}

static void keep(struct bpf_link *made)
{
	need(libbpf_get_error(made));
	last = made;
}

static unsigned long records;

static int took(void *context, void *data, size_t size)
{
	records++;
	return 0;
}

static void attach_tc(int fd)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = if_nametoindex(word()));
	LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = fd);

	hook.attach_point = strcmp(word(), "ingress") ? BPF_TC_EGRESS : BPF_TC_INGRESS;
	bpf_tc_hook_create(&hook);
	need(bpf_tc_attach(&hook, &options));
}

static void do_it(const char *what)
{
	if (!strcmp(what, "load")) {
		object = bpf_object__open_file(word(), NULL);
		need(libbpf_get_error(object));
		need(bpf_object__load(object));
	} else if (!strcmp(what, "load-linked")) { /* structs that are registered by links */
		struct bpf_map *map;

		object = bpf_object__open_file(word(), NULL);
		need(libbpf_get_error(object));
		bpf_object__for_each_map(map, object)
			if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
				need(bpf_map__set_map_flags(map, 1 << 13 /* BPF_F_LINK */));
		need(bpf_object__load(object));
	} else if (!strcmp(what, "register")) {
		struct bpf_map *map = bpf_object__find_map_by_name(object, word());

		keep(bpf_map__attach_struct_ops(map));
		if (bpf_map__map_flags(map) && libbpf_minor_version() < 2) /* later ones make the link */
			need(last_fd = bpf_link_create(bpf_map__fd(map), 0, 44, NULL));
	} else if (!strcmp(what, "sample")) { /* as bpftrace does, which makes no link */
		struct perf_event_attr clock = { .type = PERF_TYPE_SOFTWARE, .sample_period = 1000000 };
		int event, fd = bpf_program__fd(program());

		clock.size = sizeof(clock);
		need(event = syscall(SYS_perf_event_open, &clock, -1, 0, -1, 0));
		need(ioctl(event, PERF_EVENT_IOC_SET_BPF, fd));
	} else if (!strcmp(what, "at-map")) {
		int fd = bpf_program__fd(program()), map = bpf_object__find_map_fd_by_name(object, word());

		need(bpf_prog_attach(fd, map, atoi(word()), 0));
	} else if (!strcmp(what, "attach")) {
		keep(bpf_program__attach(program()));
	} else if (!strcmp(what, "xdp-link")) {
		struct bpf_program *found = program();

		keep(bpf_program__attach_xdp(found, if_nametoindex(word())));
	} else if (!strcmp(what, "xdp")) {
		int fd = bpf_program__fd(program());

		need(bpf_xdp_attach(if_nametoindex(word()), fd, 2 /* XDP_FLAGS_SKB_MODE */, NULL));
	} else if (!strcmp(what, "tc")) {
		attach_tc(bpf_program__fd(program()));
	} else if (!strcmp(what, "link") || !strcmp(what, "place")) { /* numbers: old libbpf lacks tcx and netkit */
		int fd = bpf_program__fd(program()), interface = if_nametoindex(word()), type = atoi(word());

		if (!strcmp(what, "link")) {
			need(last_fd = bpf_link_create(fd, interface, type, NULL));
			last = NULL;
		} else
			need(bpf_prog_attach(fd, interface, type, 0));
	} else if (!strcmp(what, "cgroup")) {
		int fd = bpf_program__fd(program());
		FILE *folder = fopen(word(), "r");

		need(bpf_prog_attach(fd, fileno(folder), BPF_CGROUP_INET_EGRESS, BPF_F_ALLOW_MULTI));
	} else if (!strcmp(what, "cgroup-link")) {
		struct bpf_program *found = program();

		keep(bpf_program__attach_cgroup(found, fileno(fopen(word(), "r"))));
	} else if (!strcmp(what, "forget")) { /* a program that something else holds */
		close(bpf_program__fd(program()));
	} else if (!strcmp(what, "pin-map")) {
		struct bpf_map *map = bpf_object__find_map_by_name(object, word());

		need(bpf_map__pin(map, word()));
	} else if (!strcmp(what, "pin-link")) {
		need(last ? bpf_link__pin(last, word()) : bpf_obj_pin(last_fd, word()));
	} else if (!strcmp(what, "ring")) {
		ring = ring_buffer__new(bpf_object__find_map_fd_by_name(object, word()), took, NULL, NULL);
		need(libbpf_get_error(ring));
	} else if (!strcmp(what, "read")) { /* what is there now */
		need(ring_buffer__consume(ring));
	} else if (!strcmp(what, "poll")) { /* until a signal ends it */
		for (;;)
			ring_buffer__poll(ring, 1000);
	} else if (!strcmp(what, "spin")) { /* reads as fast as it can */
		for (;;)
			ring_buffer__consume(ring);
	} else if (!strcmp(what, "close")) {
		if (last) {
			bpf_link__disconnect(last);
			bpf_link__destroy(last);
		}
		bpf_object__close(object);
		last = NULL;
		object = NULL;
	} else if (!strcmp(what, "exec")) { /* with all descriptors that do not close on exec: none */
		execvp(*next, next);
		need(-2);
	} else if (!strcmp(what, "say")) {
		puts(word());
		fflush(stdout);
	} else if (!strcmp(what, "each")) { /* reads once for each line of another process: a fifo's */
		FILE *fifo = fopen(word(), "r");

		while (fifo && fgetc(fifo) != EOF) {
			ring_buffer__consume(ring);
			printf("read %lu\n", records);
			fflush(stdout);
		}
	} else if (!strcmp(what, "exit")) {
		exit(atoi(word()));
	} else if (!strcmp(what, "wait")) {
		sigset_t signals;
		int number;

		sigemptyset(&signals);
		sigaddset(&signals, SIGTERM);
		sigprocmask(SIG_BLOCK, &signals, NULL);
		puts("waiting");
		fflush(stdout);
		sigwait(&signals, &number);
		if (last)
			bpf_link__destroy(last);
		if (object)
			bpf_object__close(object);
		exit(0);
	} else {
		fprintf(stderr, "agent: what is '%s'?\n", what);
		exit(64);
	}
}

int main(int count, char **arguments)
{
	for (next = arguments + 1; *next;)
		do_it(word());
	return 0;
}
