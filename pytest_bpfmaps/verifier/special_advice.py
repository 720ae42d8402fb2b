"""Advice on complaints about locks, timers, kept pointers, dynptrs, atomics, and functions to attach to.

Each entry is a pattern for the complaint, why the program is rejected, and what to do. They come before those
of `advice`, whose patterns are wider.
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
        "fmod_ret is for functions whose result may be replaced, and that one's may not",
        'see its result with SEC("fexit/…"); or refuse what it does at a hook, SEC("lsm/…"), or at one '
        "of /sys/kernel/debug/error_injection/list",
    ),
    (
        r"to __noreturn function",
        "the function never returns, so nothing can be attached to its end",
        'attach to its beginning: SEC("fentry/…")',
    ),
    (
        r"Attaching tracing programs to function '\w+' is rejected",
        "the kernel calls that function itself while it enters such a program",
        'take a kprobe, SEC("kprobe/…"), or another function',
    ),
    (
        r"The function \S+ with variable args is unsupported",
        "the function takes a variable number of arguments, which fentry, fexit and fmod_ret can't hand on",
        'take a kprobe, SEC("kprobe/…")',
    ),
    (
        r"dereference of modified \w*mem ptr|must have zero offset when passed to release",
        "what is released is not the address that was acquired: something was added to it",
        "give it the pointer as bpf_ringbuf_reserve(), or what else acquired it, returned it",
    ),
    (
        r"expects referenced PTR_TO_BTF_ID|expects refcounted|reference has not been acquired before",
        "the program releases what it has not acquired: an argument, or a field, is not its own",
        "release only what an …_acquire(), …_from_…() or …_lookup_…() has given it, and leave out the rest",
    ),
    (
        r"Unsupported reg type \w+ for bpf_dynptr_from_mem",
        "bpf_dynptr_from_mem() takes the memory of a map's value, and of nothing else",
        "put the bytes into the value of an array map, and give its address",
    ),
    (
        r"Expected an initialized dynptr",
        "the dynptr holds nothing there: it was not made on that path, was written over, or was given back",
        "make it with bpf_dynptr_from_mem(), or another, right before, and touch it through "
        "bpf_dynptr_…() only",
    ),
    (
        r"timer pointer in R\d+ map_uid=\d+ doesn't match map",
        "the timer lies in the value of one map, and the call is given another map",
        "give bpf_timer_init() the map that the value was looked up in",
    ),
    (
        r"bpf_spin_unlock of different lock|unlock of different lock",
        "the lock that is released is not the one that was taken",
        "give bpf_spin_unlock() the pointer that bpf_spin_lock() was given",
    ),
    (
        r"^bpf_\w+ cannot be accessed directly by load/store|cannot be accessed (?:directly )?by load/store",
        "the program reads or writes the whole value, with the lock, timer or other special field in it",
        "copy the other fields one by one",
    ),
    (
        r"BPF_(?:ATOMIC|XADD) stores into R\d+ (?:pkt|ctx|sock|flow_keys|\w*ptr_)",
        "atomic operations are for memory of the program, not for packets, contexts and kernel structs",
        "read it, add, and write it back; or count in a map's value",
    ),
]
