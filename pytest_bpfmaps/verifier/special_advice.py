"""Advice on complaints about locks, timers, kptrs, dynptrs, atomics, sockets, and functions to attach to.

Each entry has a pattern for the complaint, why the program is rejected, and what to do. The entries of
`advice` come after these, because their patterns match more complaints.
"""

TRAP = (
    "clang calls __bpf_trap where C does not say what happens: a variable has no value on some path, or a "
    "path has no return",
    "give the variable a value in its declaration; return a number on every path, also in place of "
    "__builtin_unreachable()",
)
"""Why and what to do for a call that clang 21 and later make. Linux 6.17 and later have that function."""

SPECIAL: list[tuple[str, str, str]] = [
    (r"unexpected __bpf_trap\(\)", *TRAP),
    (
        r"unbounded (?:variable-offset|indirect variable offset) (?:write|stack|read)|"
        r"^R\d+ unbounded indirect variable offset stack access|variable[- ]offset write to stack|"
        r"variable stack (?:access|write)|unbounded variable-offset",
        "an array on the stack is indexed by a number that can be larger than the array",
        "bound the index right before the access: if (i >= SIZE) return 0; or i &= SIZE - 1, with an "
        "unsigned type",
    ),
    (
        r"\(\) is not modifiable",
        "fmod_ret is for functions whose result may be replaced, but the result of that one may not",
        'read its result with SEC("fexit/…"); or refuse the operation at a hook, SEC("lsm/…"), or at a '
        "function of /sys/kernel/debug/error_injection/list",
    ),
    (
        r"to __noreturn function",
        "the function never returns, so nothing can be attached to its end",
        'attach to its beginning: SEC("fentry/…")',
    ),
    (
        r"Attaching tracing programs to function '\w+' is rejected",
        "the kernel calls that function itself while it enters such a program",
        'use a kprobe, SEC("kprobe/…"), or another function',
    ),
    (
        r"The function \S+ with variable args is unsupported",
        "the function takes a variable number of arguments, which fentry, fexit and fmod_ret can't pass on",
        'use a kprobe, SEC("kprobe/…")',
    ),
    (
        r"dereference of modified \w*mem ptr|must have zero offset when passed to release",
        "the released pointer is not the acquired one: the program has added a number to it",
        "release the pointer that bpf_ringbuf_reserve(), or another call that acquires, has returned",
    ),
    (
        r"expects referenced PTR_TO_BTF_ID|expects refcounted|reference has not been acquired before|"
        r"must be referenced when passed to release",
        "the program releases a pointer that it has not acquired, such as an argument or a field",
        "release only what an …_acquire(), …_from_…() or …_lookup_…() has returned",
    ),
    (
        r"Unsupported reg type \w+ for bpf_dynptr_from_mem",
        "bpf_dynptr_from_mem() takes only the memory of a map's value",
        "put the bytes into the value of an array map, and give its address",
    ),
    (
        r"Expected an initialized dynptr",
        "the dynptr has no memory there: it was not made on that path, was overwritten, or was released",
        "make it right before with bpf_dynptr_from_mem(), or another such helper, and access it only with "
        "bpf_dynptr_…()",
    ),
    (
        r"timer pointer in R\d+ map_uid=\d+ doesn't match map",
        "the timer is in the value of one map, but the call gets another map",
        "give bpf_timer_init() the map whose value has the timer",
    ),
    (
        r"bpf_spin_unlock of different lock|unlock of different lock",
        "the lock that is released is not the lock that was taken",
        "give bpf_spin_unlock() the same pointer as bpf_spin_lock()",
    ),
    (
        r"^bpf_\w+ cannot be accessed directly by load/store|cannot be accessed (?:directly )?by load/store",
        "the program reads or writes the whole value, including its lock, timer or other special field",
        "copy the other fields one by one",
    ),
    (
        r"has no valid kptr|doesn't point to kptr|kptr isn't referenced kptr",
        "the map's value has no pointer at that address whose object the map keeps (kptr)",
        "mark the field in the struct of the map's value, and give its address: struct TYPE __kptr *field; "
        "(before Linux 6.4 __kptr_ref)",
    ),
    (
        r"BPF_(?:ATOMIC|XADD) stores into R\d+ (?:pkt|ctx|sock|flow_keys|\w*ptr_)",
        "atomic operations are for memory of the program, not for packets, contexts and kernel structs",
        "read the number, add to it, and write it back; or count in a map's value",
    ),
    (
        r"tail_calls are not allowed when call stack",
        "a function that makes a tail call is called while more than 256 bytes of the stack are in use",
        "keep large variables in a per-CPU array map instead of on the stack, or make the tail call in the "
        "program itself",
    ),
    (
        r"last insn is not an exit or jmp",
        "the last path of the program has no return: clang was told that nothing goes there",
        "return a number on every path, also in place of __builtin_unreachable() and __builtin_trap()",
    ),
    (
        r"invalid sock_common access",
        "only full sockets have that field: all others have the first fields of struct bpf_sock",
        "get the full socket first: sk = bpf_sk_fullsock(sk); if (!sk) return …; or look it up with "
        "bpf_sk_lookup_tcp() in place of bpf_skc_lookup_tcp()",
    ),
    (
        r"is ptr_\w+ invalid variable offset",
        "the program reads a kernel struct at an offset that is not constant, such as an array in it at an "
        "index",
        "copy the array, and index the copy: char copy[16]; "
        "bpf_probe_read_kernel(copy, sizeof(copy), task->comm); copy[i & 15]",
    ),
    (
        r"cannot write into packet",
        "programs of this type may read packets, but not change them",
        'change them in SEC("tc") or SEC("xdp")',
    ),
    (
        r"BPF_LD_\[ABS\|IND\] instructions not allowed for this program type",
        "load_byte(), load_half() and load_word() are for programs of socket filters and tc only",
        "in XDP, compare the packet's own pointer with data_end, and read through it; in other programs call "
        "bpf_skb_load_bytes()",
    ),
    (
        r"get_local_storage\(\) doesn't support non-zero flags",
        "the second argument of bpf_get_local_storage() is for flags, and there are none",
        "give the number 0: bpf_get_local_storage(&map, 0)",
    ),
    (
        r"same insn cannot be used with different pointers",
        "clang has joined two accesses, of the context and of other memory, into one instruction",
        "access each in a branch of its own, and keep clang from joining them: "
        "if (…) { n = ctx->FIELD; barrier_var(n); } else { n = value->…; }",
    ),
    (
        r"helper access to the packet is not allowed",
        "this helper may not read the packet, or write to it, through the program's pointer",
        "copy the bytes into a variable; bpf_perf_event_output() itself appends LENGTH bytes of the packet: "
        "bpf_perf_event_output(ctx, &map, BPF_F_CURRENT_CPU | (__u64)LENGTH << 32, &event, sizeof(event))",
    ),
    (
        r"must be a known constant|is not a known constant",
        "that argument has to be a number that is known when the program is compiled",
        "give a constant, such as sizeof(variable)",
    ),
]
