/* The C side of the benchmarks: each command prints one figure. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define MOST_SIZE 2048 /* of a record, in bytes */

typedef unsigned int u32;
typedef unsigned long long u64;

static double now(void)
{
	struct timespec t;

	clock_gettime(getenv("BENCH_WALL") ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 1;
}

/* millions of elements a second, all in as few calls as the kernel allows */
static int read_map(int fd, u32 count)
{
	u32 *keys = malloc(sizeof(*keys) * count), place = 0, total = 0, got;
	u64 *values = malloc(sizeof(*values) * count);
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	double began = now();
	int err;

	do {
		got = count - total;
		err = bpf_map_lookup_batch(fd, total ? &place : NULL, &place, keys + total, values + total, &got, &opts);
		if (err && errno != ENOENT)
			return fail("lookup_batch");
		total += got;
	} while (!err && total < count);
	printf("%f\n", total / (now() - began) / 1e6);
	return total != count;
}

static int update_map(int fd, u32 count)
{
	u32 *keys = malloc(sizeof(*keys) * count), done = count;
	u64 *values = malloc(sizeof(*values) * count);
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	double began;

	for (u32 i = 0; i < count; i++) {
		keys[i] = i;
		values[i] = 3ull * i;
	}
	began = now();
	if (bpf_map_update_batch(fd, keys, values, &done, &opts))
		return fail("update_batch");
	printf("%f\n", count / (now() - began) / 1e6);
	return done != count;
}

struct event {
	u64 number;
	u32 pid, kind;
};

static u64 seen, sum;
static char *kept; /* where the next record goes, if it is kept */

static int on_event(void *context, void *data, size_t size)
{
	seen++;
	if (kept)
		kept = mempcpy(kept, data, size);
	sum += ((struct event *)data)->pid;
	return 0;
}

/* With `keep`, each record is copied into one array, as the user of NumPy has it. */
static int read_ring(int fd, u32 count, int keep)
{
	struct ring_buffer *ring = ring_buffer__new(fd, on_event, NULL, NULL);
	double began;

	if (!ring)
		return fail("ring_buffer__new");
	began = now();
	if (keep && !(kept = malloc((size_t)count * MOST_SIZE)))
		return fail("malloc");
	ring_buffer__consume(ring);
	printf("%f\n", seen / (now() - began) / 1e6);
	return seen != count || sum != 7ull * count;
}

/* milliseconds for one load, attach, detach, close; the mean of `rounds` */
static int load(const char *path, int rounds)
{
	double began = now();

	for (int i = 0; i < rounds; i++) {
		struct bpf_object *object = bpf_object__open_file(path, NULL);
		struct bpf_program *program;
		struct bpf_link *link;

		if (!object || bpf_object__load(object))
			return fail("load");
		program = bpf_object__next_program(object, NULL);
		link = bpf_program__attach(program);
		if (!link)
			return fail("attach");
		bpf_link__destroy(link);
		bpf_object__close(object);
	}
	printf("%f\n", (now() - began) / rounds * 1e3);
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc == 4 ? argv[1] : "";
	u32 count = argc == 4 ? atoi(argv[3]) : 0;

	if (!strcmp(command, "load"))
		return load(argv[2], count);
	int fd = argc == 4 ? bpf_map_get_fd_by_id(atoi(argv[2])) : -1;

	if (fd < 0)
		return fail("map");
	if (!strcmp(command, "read_map"))
		return read_map(fd, count);
	if (!strcmp(command, "update_map"))
		return update_map(fd, count);
	if (!strcmp(command, "read_ring"))
		return read_ring(fd, count, 0);
	if (!strcmp(command, "keep_ring"))
		return read_ring(fd, count, 1);
	fprintf(stderr, "usage: peer COMMAND MAP-ID|PATH COUNT\n");
	return 2;
}
