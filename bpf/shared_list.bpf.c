// SPDX-License-Identifier: MIT
// Builds a linked list in an arena: memory that the program and user space share. A pointer is valid in
// both. This needs clang 19 or later, which turns address spaces into the instructions that convert
// pointers.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#ifndef __BPF_FEATURE_ADDR_SPACE_CAST
#error "arenas need clang 19 or later"
#endif
#define __arena __attribute__((address_space(1)))

struct {
	__uint(type, 33);           // BPF_MAP_TYPE_ARENA: <linux/bpf.h> has it from Linux 6.9 on
	__uint(map_flags, 1 << 10); // BPF_F_MMAPABLE
	__uint(max_entries, 16);    // pages
} arena SEC(".maps");

struct node {
	struct node __arena *next;
	__u64 value;
};

struct node example;        // makes clang keep the type for user space
struct node __arena *first; // a pointer that user space can follow

void __arena *bpf_arena_alloc_pages(void *map, void __arena *address, __u32 pages, int node_id,
				    __u64 flags) __ksym;

SEC("syscall") // allocating may sleep, and a syscall program is allowed to sleep
int build(void *ctx)
{
	struct node __arena *nodes = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0);

	if (!nodes)
		return 1;
	for (int i = 0; i < 3; i++) {
		nodes[i].value = (i + 1) * (i + 1);
		nodes[i].next = i < 2 ? &nodes[i + 1] : 0;
	}
	first = nodes;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
