// A loader with a BPF token, by bpf(2) itself: the libbpf of Debian 12 knows no tokens.
// It does what its arguments say, in order.
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAP_CREATE, MAP_UPDATE_ELEM = 2, PROG_LOAD = 5, OBJ_PIN, BTF_LOAD = 18, LINK_CREATE = 28, TOKEN_CREATE = 36 };
enum { F_TOKEN_FD = 1 << 16 };

// Parts of union bpf_attr, as Linux 6.9 has them.
struct map_create {
	uint32_t type, key_size, value_size, max_entries, flags, inner, node;
	char name[16];
	uint32_t ifindex, btf_fd, btf_key, btf_value, btf_vmlinux_value;
	uint64_t extra;
	int32_t value_btf_fd, token_fd;
};
struct prog_load {
	uint32_t type, count;
	uint64_t instructions, license;
	uint32_t log_level, log_size;
	uint64_t log;
	uint32_t version, flags;
	char name[16];
	uint32_t ifindex, expected_attach_type, btf_fd, func_size;
	uint64_t funcs;
	uint32_t func_count, line_size;
	uint64_t lines;
	uint32_t line_count, attach_btf_id, attach_prog_fd, relo_count;
	uint64_t fd_array, relos;
	uint32_t relo_size, log_true_size;
	int32_t token_fd;
};
struct btf_load {
	uint64_t data, log;
	uint32_t size, log_size, log_level, log_true_size, flags;
	int32_t token_fd;
};

// The types u32 (1) and u64 (2).
static const struct {
	uint16_t magic;
	uint8_t version, flags;
	uint32_t header, type_at, type_size, string_at, string_size;
	uint32_t types[8];
	char strings[9];
} types = {
	0xeb9f, 1, 0, 24, 0, 32, 32, 9,
	{ 1, 1 << 24, 4, 32, 5, 1 << 24, 8, 64 },
	"\0u32\0u64",
};
static const uint64_t pass[] = { 0x2000000b7, 0x95 }; // r0 = 2 (XDP_PASS); exit

static int token = -1, btf, map, program;
static char **next;

static char *word(void)
{
	if (!*next)
		exit(64);
	return *next++;
}

static int need(const char *what, int result)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(65);
	}
	return result;
}

static int bpf(int command, void *attributes, int size)
{
	return syscall(SYS_bpf, command, attributes, size);
}

static void make_token(void)
{
	uint32_t attributes[] = { 0, need("open", open(getenv("LIBBPF_BPF_TOKEN_PATH"), O_DIRECTORY)) };

	token = need("BPF_TOKEN_CREATE", bpf(TOKEN_CREATE, attributes, sizeof(attributes)));
}

static void load_btf(void)
{
	struct btf_load attributes = { (uintptr_t)&types, .size = 24 + 32 + 9 };

	if (token >= 0) {
		attributes.flags = F_TOKEN_FD;
		attributes.token_fd = token;
	}
	btf = need("BPF_BTF_LOAD", bpf(BTF_LOAD, &attributes, sizeof(attributes)));
}

static void make_map(int type)
{
	struct map_create attributes = { type, 4, 8, 8, .name = "counts" };
	uint32_t key = 7;
	uint64_t value = 42;
	struct { uint64_t map, key, value, flags; } element = { 0, (uintptr_t)&key, (uintptr_t)&value };

	if (btf) {
		attributes.btf_fd = btf;
		attributes.btf_key = 1;
		attributes.btf_value = 2;
	}
	if (token >= 0) {
		attributes.flags = F_TOKEN_FD;
		attributes.token_fd = token;
	}
	map = need("BPF_MAP_CREATE", bpf(MAP_CREATE, &attributes, sizeof(attributes)));
	element.map = map;
	need("BPF_MAP_UPDATE_ELEM", bpf(MAP_UPDATE_ELEM, &element, sizeof(element)));
}

static void load(int type, int attach_type)
{
	struct prog_load attributes = { type, 2, (uintptr_t)pass, (uintptr_t)"GPL", .name = "pass_all" };

	attributes.expected_attach_type = attach_type;
	if (token >= 0) {
		attributes.flags = F_TOKEN_FD;
		attributes.token_fd = token;
	}
	program = need("BPF_PROG_LOAD", bpf(PROG_LOAD, &attributes, sizeof(attributes)));
}

static void attach(const char *name)
{
	uint32_t attributes[] = { program, if_nametoindex(name), 37 /* BPF_XDP */, 0 };

	need("BPF_LINK_CREATE", bpf(LINK_CREATE, attributes, sizeof(attributes)));
}

static void pin(const char *path)
{
	struct { uint64_t path; uint32_t fd, flags; } attributes = { (uintptr_t)path, map };

	need("BPF_OBJ_PIN", bpf(OBJ_PIN, &attributes, sizeof(attributes)));
}

int main(int count, char **arguments)
{
	sigset_t signals;
	int number;

	for (next = arguments + 1; *next;) {
		const char *what = word();

		if (!strcmp(what, "token"))
			make_token();
		else if (!strcmp(what, "btf"))
			load_btf();
		else if (!strcmp(what, "map"))
			make_map(atoi(word()));
		else if (!strcmp(what, "prog")) {
			int type = atoi(word());

			load(type, atoi(word()));
		} else if (!strcmp(what, "attach"))
			attach(word());
		else if (!strcmp(what, "pin"))
			pin(word());
		else
			exit(64);
	}
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	puts("waiting");
	fflush(stdout);
	sigwait(&signals, &number);
	return 0;
}
