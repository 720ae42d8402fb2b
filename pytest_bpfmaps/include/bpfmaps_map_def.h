/* SPDX-License-Identifier: MIT */
/* What libbpf's bpf_helpers.h declared before version 1.0, for a source with legacy maps. */
struct bpf_map_def {
	unsigned int type;
	unsigned int key_size;
	unsigned int value_size;
	unsigned int max_entries;
	unsigned int map_flags;
};
