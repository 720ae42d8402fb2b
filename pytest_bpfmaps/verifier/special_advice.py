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
        r"The function \S+ (?:return|arg\d+) type \S+ is unsupported",
        "fentry, fexit and fmod_ret can't pass on a struct as such, which that function takes or returns",
        'use a kprobe, SEC("kprobe/…"), or another function',
    ),
    (
        r"can only use preallocated hash map",
        "programs that run in an interrupt may use no map whose elements are allocated when they are added",
        "leave BPF_F_NO_PREALLOC out of the map's flags, or use Linux 6.1 or later: pytest --bpf-kernel=6.1",
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
        r"(?:timer|workqueue) pointer in R\d+ map_uid=\d+ doesn't match map",
        "the timer, or work queue, is in the value of one map, but the call gets another map",
        "give bpf_timer_init() the map whose value has the timer, and bpf_wq_init() the map whose value "
        "has the work queue",
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
        r"tail_call is only allowed in functions that return 'int'",
        "a function that makes a tail call has to return an int, but this one returns something else",
        "declare it to return int, and return a number after the call: static int NAME(…) "
        "{ bpf_tail_call(…); return 0; }",
    ),
    (
        r"store to referenced kptr disallowed",
        "the map keeps the object of that pointer (kptr), so an assignment can't replace it",
        "exchange it, and release what was there: old = bpf_kptr_xchg(&value->FIELD, new); if (old) "
        "bpf_task_release(old), or the release function of its type",
    ),
    (
        r"requires RCU critical section protection",
        "the kernel function may be called only in a region of bpf_rcu_read_lock(), and it is not in one",
        "call bpf_rcu_read_lock() before it, and bpf_rcu_read_unlock() after the last use of its result; "
        "declare both: extern void bpf_rcu_read_lock(void) __ksym;",
    ),
    (
        r"must be a rcu pointer",
        "the kernel function needs a pointer that the verifier knows to be valid: a field of a kernel "
        "struct is so only in a region of bpf_rcu_read_lock()",
        "read the field and call the function between bpf_rcu_read_lock() and bpf_rcu_read_unlock(); or get "
        "the pointer from bpf_get_current_task_btf(), or an argument of the program",
    ),
    (
        r"expected an initialized iter_\w+",
        "the iterator is not begun there: its …_new() was not called on that path, or it has ended",
        "call the iterator's …_new(&it, …) right before the first …_next(&it), and its …_destroy(&it) once, "
        "at the end",
    ),
    (
        r"expected (?:an )?uninitialized iter_\w+",
        "the iterator was begun before, and has not ended",
        "call the iterator's …_destroy(&it) before its …_new(&it, …), or take another variable",
    ),
    (
        r"off -?\d+\S* size \d+\n.*memory, len pair leads to invalid memory",
        "the variable that is given has less bytes than the length that is given with it",
        "make the variable as large as what is read: struct ethhdr buffer; and give its own size: "
        "…(&buffer, sizeof(buffer))",
    ),
    (
        r"doesn't point to a map value",
        "that argument has to be in the value of a map, but the call gets other memory",
        "put it into the struct of a map's value, look the value up, and give its address: &value->FIELD",
    ),
    (
        r"cannot restore irq state out of order",
        "regions of bpf_local_irq_save() overlap: the one that was begun last has to end first",
        "call bpf_local_irq_restore() in the reverse order of the calls of bpf_local_irq_save()",
    ),
    (
        r"expected an initialized irq flag",
        "bpf_local_irq_restore() gets a variable that bpf_local_irq_save() has not set on that path",
        "call bpf_local_irq_save(&flags) before it, with the same variable",
    ),
    (
        r"expected (?:an )?uninitialized irq flag",
        "bpf_local_irq_save() gets a variable that has the state of an earlier call, which has not ended",
        "call bpf_local_irq_restore(&flags) first, or take another variable",
    ),
    (
        r"doesn't point to an irq flag on stack",
        "the state of bpf_local_irq_save() has to be kept on the stack",
        "declare it in the function: unsigned long flags; bpf_local_irq_save(&flags);",
    ),
    (
        r"bpf_res_spin_unlock(?:_irqrestore)? without taking a lock",
        "bpf_res_spin_lock() can fail, and the program releases the lock also where it did",
        "check the result: if (bpf_res_spin_lock(&value->lock)) return 0;",
    ),
    (
        r"bpf_(?:spin_)?unlock without taking a lock",
        "the program releases a lock that it has not taken on that path",
        "call bpf_spin_lock() on every path to bpf_spin_unlock(), and each only once",
    ),
    (
        r"bpf_rdonly_cast type ID argument must be of a struct or void",
        "bpf_rdonly_cast() casts to a struct or to void only",
        "give it bpf_core_type_id_kernel(struct …); or 0 for void, and read the memory as any type",
    ),
    (
        r"css_task_iter is only allowed in",
        "programs of this type may not go through the tasks of a cgroup",
        'use SEC("lsm/…"), SEC("iter/…"), or a sleepable program: SEC("fentry.s/…"), SEC("syscall")',
    ),
    (
        r"arg \d is an unacquired reference",
        "the program releases what it has not acquired on that path, or has released before",
        "release each object or dynptr exactly once, by the counterpart of the call that made it: "
        "bpf_ringbuf_reserve_dynptr() and then either bpf_ringbuf_submit_dynptr() or _discard_dynptr()",
    ),
    (
        r"expected pointer to ctx, but got",
        "that argument has to be the program's own context, but the function gets another value",
        "give it the parameter of the program, unchanged: ctx, skb",
    ),
    (
        r"expected pointer to STRUCT \w+ but \S+ has a pointer to STRUCT \w+",
        "the kernel function gets an object of another type; a cast does not change what the verifier knows",
        "give it an object that a kernel function has returned with that type, such as bpf_cpumask_create() "
        "for a struct bpf_cpumask",
    ),
    (
        r"must be held for bpf_(?:list_head|rb_root)",
        "a list or tree may be changed only while the bpf_spin_lock() beside it is held",
        "call bpf_spin_lock() for the lock of the same struct, or section, before the call, and "
        "bpf_spin_unlock() after it",
    ),
    (
        r"bpf_(?:list|rb)_node not found at offset",
        "the function needs the address of the node in the object, but gets another field of it",
        "give the address of the field of type struct bpf_list_node, or bpf_rb_node: &object->NODE",
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
