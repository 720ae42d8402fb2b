/* <bpf/btf.h>: BPF Type Format, and its way back to C. */
struct btf;
struct btf_dump;
struct btf_type;

struct btf_dump_opts {
	size_t sz;
};

typedef void (*btf_dump_printf_fn_t)(void *ctx, const char *fmt, void *args);

void btf__free(struct btf *btf);
struct btf *btf__new(const void *data, uint32_t size);
struct btf *btf__parse_raw(const char *path);
struct btf *btf__parse_raw_split(const char *path, struct btf *base_btf);
struct btf *btf__load_from_kernel_by_id(uint32_t id);
uint32_t btf__type_cnt(const struct btf *btf);
const void *btf__raw_data(const struct btf *btf, uint32_t *size);
uint32_t btf__endianness(const struct btf *btf);
struct btf_dump *btf_dump__new(const struct btf *btf, btf_dump_printf_fn_t printf_fn, void *ctx,
			       const struct btf_dump_opts *opts);
void btf_dump__free(struct btf_dump *d);
int btf_dump__dump_type(struct btf_dump *d, uint32_t id);
struct btf *btf__load_vmlinux_btf(void);
int btf__find_by_name_kind(const struct btf *btf, const char *type_name, uint32_t kind);
const struct btf_type *btf__type_by_id(const struct btf *btf, uint32_t id);
const char *btf__name_by_offset(const struct btf *btf, uint32_t offset);
