"""Advice on complaints about locks, timers, kptrs, dynptrs, atomics, and functions to attach to.

Each entry has a pattern for the complaint, why the program is rejected, and what to do. The entries of
`advice` come after these, because their patterns match more complaints.
"""

SPECIAL: list[tuple[str, str, str]] = [
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
        r"expects referenced PTR_TO_BTF_ID|expects refcounted|reference has not been acquired before",
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
]
