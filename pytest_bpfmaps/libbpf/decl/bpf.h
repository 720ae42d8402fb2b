/* <bpf/bpf.h>: thin wrappers of the bpf(2) commands. */
struct bpf_map_create_opts {
	size_t sz;
	uint32_t btf_fd;
	uint32_t btf_key_type_id;
	uint32_t btf_value_type_id;
	uint32_t btf_vmlinux_value_type_id;
	uint32_t inner_map_fd;
	uint32_t map_flags;
	uint64_t map_extra;
	uint32_t numa_node;
	uint32_t map_ifindex;
};

struct bpf_prog_load_opts {
	size_t sz;
	int attempts;
	uint32_t expected_attach_type;
	uint32_t prog_btf_fd;
	uint32_t prog_flags;
	uint32_t prog_ifindex;
	uint32_t kern_version;
	uint32_t attach_btf_id;
	uint32_t attach_prog_fd;
	uint32_t attach_btf_obj_fd;
	const int *fd_array;
	const void *func_info;
	uint32_t func_info_cnt;
	uint32_t func_info_rec_size;
	const void *line_info;
	uint32_t line_info_cnt;
	uint32_t line_info_rec_size;
	uint32_t log_level;
	uint32_t log_size;
	char *log_buf;
};

struct bpf_btf_load_opts {
	size_t sz;
	char *log_buf;
	uint32_t log_level;
	uint32_t log_size;
};

struct bpf_map_batch_opts {
	size_t sz;
	uint64_t elem_flags;
	uint64_t flags;
};

struct bpf_link_create_opts {
	size_t sz;
	uint32_t flags;
};

struct bpf_link_update_opts {
	size_t sz;
	uint32_t flags;
	uint32_t old_prog_fd;
};

struct bpf_test_run_opts {
	size_t sz;
	const void *data_in;
	void *data_out;
	uint32_t data_size_in;
	uint32_t data_size_out;
	const void *ctx_in;
	void *ctx_out;
	uint32_t ctx_size_in;
	uint32_t ctx_size_out;
	uint32_t retval;
	int repeat;
	uint32_t duration;
	uint32_t flags;
	uint32_t cpu;
	uint32_t batch_size;
};

int bpf_map_create(uint32_t map_type, const char *map_name, uint32_t key_size, uint32_t value_size,
		   uint32_t max_entries, const struct bpf_map_create_opts *opts);
int bpf_prog_load(uint32_t prog_type, const char *prog_name, const char *license, const struct bpf_insn *insns,
		  size_t insn_cnt, struct bpf_prog_load_opts *opts);
int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_lookup_elem_flags(int fd, const void *key, void *value, uint64_t flags);
int bpf_map_lookup_and_delete_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_get_next_key(int fd, const void *key, void *next_key);
int bpf_map_freeze(int fd);
int bpf_map_delete_batch(int fd, const void *keys, uint32_t *count, const struct bpf_map_batch_opts *opts);
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values, uint32_t *count,
			 const struct bpf_map_batch_opts *opts);
int bpf_map_lookup_and_delete_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values,
				    uint32_t *count, const struct bpf_map_batch_opts *opts);
int bpf_map_update_batch(int fd, const void *keys, const void *values, uint32_t *count,
			 const struct bpf_map_batch_opts *opts);
int bpf_btf_get_fd_by_id(uint32_t id);
int bpf_btf_get_next_id(uint32_t start_id, uint32_t *next_id);
int bpf_btf_load(const void *btf_data, size_t btf_size, const struct bpf_btf_load_opts *opts);
int bpf_obj_pin(int fd, const char *pathname);
int bpf_obj_get(const char *pathname);
int bpf_prog_attach(int prog_fd, int attachable_fd, uint32_t type, unsigned int flags);
int bpf_prog_detach2(int prog_fd, int attachable_fd, uint32_t type);
int bpf_prog_query(int target_fd, uint32_t type, uint32_t query_flags, uint32_t *attach_flags,
		   uint32_t *prog_ids, uint32_t *prog_cnt);
int bpf_prog_get_fd_by_id(uint32_t id);
int bpf_link_create(int prog_fd, int target_fd, uint32_t attach_type,
		    const struct bpf_link_create_opts *opts);
int bpf_link_update(int link_fd, int new_prog_fd, const struct bpf_link_update_opts *opts);
int bpf_link_detach(int link_fd);
int bpf_prog_get_next_id(uint32_t start_id, uint32_t *next_id);
int bpf_map_get_next_id(uint32_t start_id, uint32_t *next_id);
int bpf_link_get_next_id(uint32_t start_id, uint32_t *next_id);
int bpf_map_get_fd_by_id(uint32_t id);
int bpf_link_get_fd_by_id(uint32_t id);
int bpf_obj_get_info_by_fd(int bpf_fd, void *info, uint32_t *info_len);
int bpf_enable_stats(uint32_t type);
int bpf_iter_create(int link_fd);
int bpf_prog_test_run_opts(int prog_fd, struct bpf_test_run_opts *opts);
