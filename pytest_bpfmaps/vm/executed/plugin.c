// A plugin for QEMU's TCG: counts each instruction that a guest executes in an area of its addresses.
//
// All counts are in a file that QEMU and the gateway share; record.py reads it. It has a record for each translated
// block. QEMU translates again when the guest writes other code to a place, so a record never belongs to two
// programs.
//
// It needs no header of QEMU, and none of libc. QEMU_PLUGIN_VERSION is the version of the interface, 0 to 7.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EXPORTED __attribute__((visibility("default")))
#define MOST_CPUS 256
#define MOST_PENDING 16
#define MOST_EXCLUDED 240
#define FORMAT 1

// QEMU's interface
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void translated_fn(void *, void *);
typedef void executed_fn(u32 cpu, void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(u64 id, translated_fn *call, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, executed_fn *call, int flags, void *data);
unsigned long qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
u64 qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, unsigned long index);
unsigned long qemu_plugin_insn_size(const struct qemu_plugin_insn *);
#if QEMU_PLUGIN_VERSION < 3
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#else
unsigned long qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *to, unsigned long size);
#endif

// libc's
int open(const char *, int, ...);
int close(int);
void *mmap(void *, unsigned long, int, int, int, long);
void *memcpy(void *, const void *, unsigned long);
int strncmp(const char *, const char *, unsigned long);

struct header {
    u64 format;
    u64 size;  // size of the file, in bytes
    u64 used;  // bytes of this header and of all records
    u64 lost;  // blocks and jumps for which there was no room
    u64 enabled;  // set by the gateway; a block that was translated before is not counted
    u64 first, last;  // the area: addresses from first to last (not included)
    u64 excluded_count;
    struct {
        u64 first, last;
    } excluded[MOST_EXCLUDED];  // parts of the area that are not counted
};

struct record {
    u64 length;  // size of this record, in bytes; written last
    u64 address;
    u64 count_of_instructions;
    u64 code_size;
    u64 next;  // address after the block
    u64 target;  // where its last instruction may jump to; 0 if that is no conditional jump
    u64 passed;  // how often that jump was not taken
    u64 counts[];  // one for each instruction, then sizes of instructions (u8), then the code
};

struct cpu {
    struct record *pending[MOST_PENDING];  // jumps whose way is not known yet
    u64 depth;
    u64 pad[7];  // fills the cache line
};

static struct header *header;
static struct cpu cpus[MOST_CPUS];
static u32 cpus_seen;

EXPORTED int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static void add(u64 *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

static u8 *sizes_of(struct record *record) { return (u8 *)&record->counts[record->count_of_instructions]; }

static u8 *code_of(struct record *record) { return sizes_of(record) + record->count_of_instructions; }

static int resolve_on(struct cpu *cpu, u64 address) {
    for (u64 at = cpu->depth; at-- > 0;) {
        struct record *jump = cpu->pending[at];
        if (address != jump->next && address != jump->target)
            continue;
        if (address == jump->next)
            add(&jump->passed);
        for (cpu->depth--; at < cpu->depth; at++)
            cpu->pending[at] = cpu->pending[at + 1];
        return 1;
    }
    return 0;
}

// A block begins: which jump led to it? Interrupts may have run other programs since that jump, and the kernel may
// have moved its thread to another CPU. One thread of QEMU runs all CPUs.
static void resolve(u32 cpu, u64 address) {
    if (resolve_on(&cpus[cpu], address))
        return;
    for (u32 other = 0; other < cpus_seen; other++)
        if (other != cpu && resolve_on(&cpus[other], address))
            return;
}

static void jump(struct cpu *cpu, struct record *record) {
    if (cpu->depth == MOST_PENDING) {
        add(&header->lost);
        cpu->depth = 0;
    }
    cpu->pending[cpu->depth++] = record;
}

static void executed(u32 cpu, void *data) { add(data); }

static void executed_first(u32 cpu, void *data) {
    struct record *record = data;
    if (cpu >= MOST_CPUS) {
        add(&header->lost);
        return;
    }
    if (cpu >= cpus_seen)
        cpus_seen = cpu + 1;
    resolve(cpu, record->address);
    add(&record->counts[0]);
    if (record->target && record->count_of_instructions == 1)
        jump(&cpus[cpu], record);
}

static void executed_jump(u32 cpu, void *data) {
    struct record *record = data;
    if (cpu >= MOST_CPUS) {
        add(&header->lost);
        return;
    }
    add(&record->counts[record->count_of_instructions - 1]);
    jump(&cpus[cpu], record);
}

static int is_counted(u64 address) {
    if (!__atomic_load_n(&header->enabled, __ATOMIC_ACQUIRE) || address < header->first || address >= header->last)
        return 0;
    for (u64 i = 0; i < header->excluded_count && i < MOST_EXCLUDED; i++)
        if (address >= header->excluded[i].first && address < header->excluded[i].last)
            return 0;
    return 1;
}

static struct record *take(u64 length) {
    u64 at = __atomic_fetch_add(&header->used, length, __ATOMIC_RELAXED);
    if (at + length > header->size) {
        add(&header->lost);
        return 0;
    }
    return (struct record *)((u8 *)header + at);
}

static void copy_code(struct qemu_plugin_insn *instruction, u8 *to, u64 size) {
#if QEMU_PLUGIN_VERSION < 3
    memcpy(to, qemu_plugin_insn_data(instruction), size);
#else
    qemu_plugin_insn_data(instruction, to, size);
#endif
}

// The target of the conditional jump of x86 that ends before `next`; 0 when it is another instruction.
static u64 target_of(const u8 *code, u64 size, u64 next) {
    if (size == 2 && (code[0] & 0xf0) == 0x70)
        return next + (signed char)code[1];
    if (size == 6 && code[0] == 0x0f && (code[1] & 0xf0) == 0x80) {
        int distance;
        memcpy(&distance, code + 2, sizeof(distance));
        return next + distance;
    }
    return 0;
}

// Before version 7 the first argument was an id. Since version 7 the last one is `header`.
static void translated(void *one, void *other) {
    struct qemu_plugin_tb *block = other == header ? one : other;
    u64 address = qemu_plugin_tb_vaddr(block), count = qemu_plugin_tb_n_insns(block), size = 0;
    if (!count || !is_counted(address))
        return;
    for (u64 i = 0; i < count; i++)
        size += qemu_plugin_insn_size(qemu_plugin_tb_get_insn(block, i));
    u64 length = (sizeof(struct record) + count * (sizeof(u64) + 1) + size + 7) & ~7ull;
    struct record *record = take(length);
    if (!record)
        return;
    record->address = address;
    record->count_of_instructions = count;
    record->code_size = size;
    record->next = address + size;
    u8 *code = code_of(record);
    u64 one_size = 0;
    for (u64 i = 0; i < count; i++, code += one_size) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        one_size = qemu_plugin_insn_size(instruction);
        sizes_of(record)[i] = one_size;
        copy_code(instruction, code, one_size);
        int is_last = i == count - 1;
        if (is_last)
            record->target = target_of(code, one_size, record->next);
        if (i == 0)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed_first, 0, record);
        else if (is_last && record->target)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed_jump, 0, record);
        else
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed, 0, &record->counts[i]);
    }
    __atomic_store_n(&record->length, length, __ATOMIC_RELEASE);
}

// Arguments: size=BYTES, then memory=PATH of a file of that size.
EXPORTED int qemu_plugin_install(u64 id, const void *info, int count, char **arguments) {
    u64 size = 0;
    for (int i = 0; i < count; i++) {
        if (!strncmp(arguments[i], "size=", 5))
            for (const char *digit = arguments[i] + 5; *digit >= '0' && *digit <= '9'; digit++)
                size = size * 10 + (*digit - '0');
        if (!strncmp(arguments[i], "memory=", 7)) {
            int file = open(arguments[i] + 7, 02);
            if (file < 0)
                return 2;
            header = mmap(0, size, 3, 1, file, 0);
            close(file);
            if (header == (void *)-1)
                return 3;
        }
    }
    if (!header || header->format != FORMAT || header->size != size)
        return 4;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated, header);
    return 0;
}
