"""A table of the verifier's complaints: what each means, in a plain sentence, and what to do about it."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.verifier.special_advice import SPECIAL

OF_LENGTH = Explanation(
    "the length may be 0, negative, or larger than the buffer",
    "bound it on both sides right before the call, in 64 bits with a sign, so that clang keeps both checks: "
    "__s64 len; if (len > SIZE) return 0; barrier_var(len); if (len < 1) return 0;",
)
_TABLE: list[tuple[str, str, str | None]] = [
    (
        r"progs cannot use bpf_(?:timer|wq)",
        "programs of this type may not use a map whose values hold a timer or a work queue",
        'set the timer in a program of another type, such as SEC("syscall") or one of the network; share '
        "other data with that program through a second map",
    ),
    (
        r"progs cannot use bpf_(?:spin_lock|res_spin_lock|timer|wq|list_head|rb_root)",
        "programs of this type may not use maps whose values have such a special field",
        "count with __atomic_fetch_add(&…, …, __ATOMIC_RELAXED), or in a per-CPU map; the field is for "
        "programs of the network",
    ),
    (
        r"doesn't have \d+-th argument|^func '\w+' arg\d+ '\(anon\)' has type UNKNOWN",
        "the program declares more parameters than the kernel's function or hook has",
        "declare the parameters that it has, as vmlinux.h does; only for fexit, fmod_ret and lsm the return "
        "value follows the last one, and a void function has none",
    ),
    (
        r"\(\) has \d+ args while|(?:Return type|arg\d+) \S+.* (?:of|in) \S+\(\) (?:doesn't match|has type)",
        "the declaration differs from that of the function that it replaces",
        "give it the same parameters, of the same types, and the same return type",
    ),
    (
        r"math between ctx pointer|variable ctx access|dereference of modified ctx",
        "a field of the context is read at an offset that is not constant, or through a pointer that was "
        "moved away from the beginning; a bound does not help",
        "read single fields from the context itself: ctx->FIELD; of an array, copy the fields one by one "
        "into a local array, and index that within its bounds",
    ),
    (
        r"does not point to a readonly map",
        "that argument has to be text that can't change, but this text is in memory that can be written",
        'declare it const and global: const char text[16] = "…";',
    ),
    (
        r"must be referenced or trusted|is not a (?:trusted|referenced)|must be a rcu pointer|"
        r"pointer type STRUCT \w+ must point to scalar",
        "the kernel function needs a pointer that the verifier knows to be valid, but this is an address",
        "get it from bpf_get_current_task_btf(), an argument of the program (tp_btf, lsm, fentry), or a "
        "kernel function that acquires it",
    ),
    (
        r"spin_lock-ed region|bpf_spin_unlock is missing|spin_unlock.*missing",
        "a path leaves the region of a bpf_spin_lock() without bpf_spin_unlock()",
        "call bpf_spin_unlock() on every path before the return; decide first, and lock only for the change",
    ),
    (
        r"(?:inside|in) bpf_(?:rcu_read_lock|preempt_disable|local_irq_save)-ed region|"
        r"bpf_(?:rcu_read_unlock|preempt_enable|local_irq_restore) is missing",
        "a path leaves the region of bpf_rcu_read_lock(), bpf_preempt_disable() or bpf_local_irq_save() "
        "without its end",
        "call bpf_rcu_read_unlock(), bpf_preempt_enable() or bpf_local_irq_restore() on every path before "
        "the return",
    ),
    (
        r"inside bpf_spin_lock|function calls are not allowed while holding a lock|while holding a lock",
        "the program does something between bpf_spin_lock() and bpf_spin_unlock() that is not allowed there",
        "keep calls and further lookups out of the locked region",
    ),
    (
        r"cannot call GPL|GPL only",
        "the program calls a helper that only programs under the GPL may call, and its licence is another",
        'declare it: char LICENSE[] SEC("license") = "GPL";',
    ),
    (
        r"GPL[- ]compatible",
        "programs of this type have to be under the GPL, and this program's licence is another",
        'declare it: char LICENSE[] SEC("license") = "GPL";',
    ),
    (
        r"invalid func unknown#195896080|CO-RE relocation",
        "the program uses a field or type that this kernel does not have (a CO-RE relocation failed)",
        "guard it with bpf_core_field_exists() or bpf_core_type_exists(), or name the field as "
        "this kernel does",
    ),
    (
        r"^\S+ is not sleepable$",
        "the program is sleepable, but its function or hook is called where nothing may sleep",
        'remove the ".s" from its section: SEC("fentry/…"), SEC("lsm/…"); or use a function or hook that '
        "may sleep",
    ),
    (
        r"[Ss]leepable programs can only use",
        "a sleepable program may not use maps of this type",
        'remove the ".s" from its section, or keep the data in an array, a hash map that is preallocated, '
        "or a ring buffer",
    ),
    (
        r"sleepable (?:helper|kfunc) \S+ (?:in|within) (?!non-sleepable prog)|is sleepable within",
        "the call may sleep, but is made where nothing may sleep: in a region of bpf_rcu_read_lock(), "
        "bpf_preempt_disable(), bpf_local_irq_save() or a lock, or in a callback",
        "end the region before the call, with its counterpart, and begin it again after the call",
    ),
    (
        r"(?:Only|only) .* can be sleepable|cannot be sleepable",
        "programs of this type can't be sleepable",
        'remove the ".s" from its section',
    ),
    (
        r"might sleep|must be sleepable|is sleepable but the program is not|in non-sleepable prog|"
        r"unknown func bpf_(?:copy_from_user|ima_)",
        "the program calls a function that may sleep, but is not sleepable itself",
        'make the program sleepable (SEC("fentry.s/…"), "lsm.s/…", "uprobe.s/…"), or call a function that '
        "does not sleep: bpf_probe_read_user() in place of bpf_copy_from_user()",
    ),
    (
        r"unknown func|cannot use helper|invalid func unknown",
        "this kernel has no such helper, or does not allow it in this type of program",
        "see 'bpftool feature probe' for the helpers of each program type; mark the test "
        "bpf_requires(helper=…)",
    ),
    (
        r"metadata kfuncs require device-bound program",
        "the program calls a kfunc for metadata, bpf_xdp_metadata_…(), which belongs to an interface's "
        "driver, but the program is not loaded for an interface",
        'load it for one: bpf.load(…, programs={"NAME": {"ifindex": interface.index, "flags": 64}}) '
        "inside its network namespace, and attach it there; 64 is BPF_F_XDP_DEV_BOUND_ONLY",
    ),
    (
        r"metadata kfuncs can't be offloaded",
        "the program calls a kfunc for metadata, but is loaded for the hardware of an interface",
        "add 64, BPF_F_XDP_DEV_BOUND_ONLY, to its flags, so that it runs on the CPU",
    ),
    (
        r"calling kernel function \S+ is not allowed",
        "this type of program may not call that kernel function, or not on this kernel",
        "look up the types that may call it in the function's registration (BTF_KFUNCS_START) in the kernel",
    ),
    (
        r"only read is supported|cannot write into ptr_|is a pointer to a read-only|write to R\d+ .*ptr_",
        "the program writes to a struct of the kernel, which it may only read",
        "change it through a helper or kernel function, if there is one; a copy can be changed freely",
    ),
    (
        r"cannot pass map_type \d+ into func",
        "that helper does not take maps of this type",
        "use a helper for this type, see bpf-helpers(7): bpf_map_push_elem() for queues, stacks and bloom "
        "filters, bpf_ringbuf_…() for ring buffers, bpf_…_storage_get() for storage",
    ),
    (
        r"has no valid bpf_(?:timer|spin_lock|wq|kptr)|has to be at the constant offset|is mangled$|"
        r"doesn't have 'struct bpf_",
        "the map's value has no such special field (timer, lock, work queue) at the address that is given",
        "put a struct bpf_timer, or bpf_spin_lock, into the struct of the map's value, and give its address; "
        "a bpf_list_head or bpf_rb_root beside it needs __contains(TYPE, FIELD)",
    ),
    (r"invalid zero-sized read", OF_LENGTH.why, OF_LENGTH.fix),
    (
        r"BPF_STX uses reserved fields|BPF_ATOMIC uses invalid",
        "this kernel's only atomic operation is an addition without a result (the others came with 5.12)",
        "write __atomic_fetch_add(&…, …, __ATOMIC_RELAXED) and don't use its result (clang 20 and later ask "
        "for that of __sync_fetch_and_add() always), or compile with cflags=['-mcpu=v2']; or use a "
        "bpf_spin_lock in the map's value",
    ),
    (
        r"unknown opcode 8d\b",
        "the program calls a function through a pointer, but BPF has no such calls",
        "call each function by its name, in an if or a switch; or make them programs, for bpf_tail_call()",
    ),
    (
        r"unknown opcode|uses reserved fields|unknown insn",
        "the program has an instruction that this kernel does not know",
        "compile it for an older instruction set: cflags=['-mcpu=v3'], v2 or v1",
    ),
    (
        r"pointer arithmetic on pkt_end prohibited|invalid mem access 'pkt_end'",
        "data_end may only be compared: nothing can be added to it, subtracted from it, or read there",
        "calculate with the packet's own pointer: if (data + SIZE > data_end) return …;",
    ),
    (
        r"32-bit pointer arithmetic",
        "BPF does not allow that arithmetic with a pointer: it is done with 32 bits",
        "calculate an offset as a number, and add it to the pointer as the last step: "
        "(void *)(long)ctx->data + OFFSET; to move the start of the packet, call bpf_xdp_adjust_head(), "
        "bpf_skb_change_head() or bpf_skb_adjust_room()",
    ),
    (
        r"pointer arithmetic (?:on (?!\S*_or_null)|with)|bitwise operator|"
        r"pointer \S+ pointer prohibited|subtract pointer from scalar|subtraction from stack pointer",
        "BPF does not allow that arithmetic with a pointer",
        "calculate an offset as a number, and add it to the pointer as the last step; in a context, a socket "
        "or a kernel struct, name the field instead",
    ),
    (
        r"recursive call from|call stack of \d+ frames is too deep",
        "the calls are nested too deeply: a function calls itself, or there are more than 8 levels of calls",
        "replace the recursion by a loop with a bound, or mark small functions __always_inline",
    ),
    (
        r"number of funcs in func_info doesn't match",
        "the program calls through a pointer, which no kernel allows, or gives a helper a callback, which "
        "this kernel does not allow (Linux 5.13 and later do)",
        "call each function by its name; in place of the helper write a loop with a bound, or mark the test "
        'with the helper that calls back: bpf_requires("bpf_for_each_map_elem"), bpf_requires("bpf_loop")',
    ),
    (
        r"has to have BTF in order to use",
        "the kernel has refused the types of that map: values of this map type may not have such a field, "
        "or the field occurs twice, or its offset is no multiple of its alignment",
        "put one bpf_timer, bpf_spin_lock or bpf_wq into the values of a hash or array, not of a per-CPU "
        "map; an LRU map may have no lock; do not use __attribute__((packed))",
    ),
    (
        r"_or_null_?'|_or_null_? prohibited|_or_null expected|[Pp]ossibly NULL",
        "the pointer may be NULL: the result of a lookup or a reservation was not checked",
        "check it before it is used: if (!pointer) return 0;",
    ),
    (
        r"cannot access ptr member|access beyond (?:struct|the end of member)",
        "the program reads a kernel struct at an offset, or in a size, that none of its fields has",
        "give the pointer the type of the struct, struct file *f = (void *)ctx[0];, and read its fields",
    ),
    (
        r"failed to find the address for kernel symbol",
        "the kernel's types have that variable, but its symbols do not (CONFIG_KALLSYMS_ALL is off)",
        "use a kernel that lists it: pytest --bpf-kernel=6.1",
    ),
    (
        r"invalid access to packet|outside of the packet",
        "the program touches packet bytes that it has not proven to be there",
        "compare with data_end first (optval_end of a sockopt program): if ((void *)(header + 1) > data_end) "
        "return …; and use that same pointer",
    ),
    (
        r"invalid (?:variable-offset )?read from stack R\d+ off=\d",
        "the program reads beyond the end of a variable on the stack, and beyond the stack itself",
        "read only the bytes of the variable, sizeof(variable), or make it larger",
    ),
    (
        r"invalid (indirect )?(read|access)[^\n]* (from|to) stack|invalid read from stack|"
        r"invalid indirect access to stack",
        "the program reads stack bytes that it has never written",
        "initialise the whole variable, including padding: struct event event = {}; or __builtin_memset()",
    ),
    (
        r"stack size of \d+ calls|stack off|invalid (write|access) to stack|invalid stack|Too large",
        "the program needs more than its 512 bytes of stack, or accesses memory outside of it",
        "keep large variables in a per-CPU array map, or in ring buffer memory, instead of on the stack",
    ),
    (
        r"R0 !read_ok",
        "the program can end without a return value",
        "return a number on every path; if every path has a return, clang removed one after undefined "
        "behaviour, a division by 0 or a variable without a value: compile with cflags=['-Wall']",
    ),
    (
        r"!read_ok|uninitialized",
        "the program uses a variable that has no value on some path; calls also clear registers R1 to R5",
        "give the variable a value in its declaration",
    ),
    (
        r"reference leak|Unreleased reference",
        "an acquired reference is not released on some path: a ring buffer record, a socket, a task",
        "call its counterpart on every path: bpf_ringbuf_submit() or _discard(), bpf_sk_release(), …",
    ),
    (
        r"back-edge|infinite loop",
        "the verifier can't see that a loop, or a function that calls itself, ends",
        "bound it by a constant, or use bpf_for(), bpf_loop() or bpf_repeat(); replace a recursion by a loop",
    ),
    (
        r"too complex|too large\. Processed|program is too large|too many states",
        "the verifier gave up: the program has too many paths or instructions to follow",
        "shorten or bound loops (bpf_loop()), and put parts into global (non-static) functions, which are "
        "verified once",
    ),
    (
        r"unbounded|min value is negative|max value is outside|outside of the allowed memory|"
        r"invalid access to map value|make sure its bounds|out of bounds",
        "an index, offset or length can point outside of the memory that it is used with",
        "bound it right before the access: if (i >= SIZE) return 0; or i &= SIZE - 1, with an unsigned type",
    ),
    (
        r"invalid bpf_context access|dereference of modified ctx",
        "programs of this type may not read, or write, that field of their context in that size",
        "read the whole field, as the context's struct declares it; see its is_valid_access in the kernel",
    ),
    (
        r"invalid mem access '(inv|scalar)'",
        "a plain number is used as a pointer: the verifier does not know the memory",
        "read kernel memory with BPF_CORE_READ() or bpf_probe_read_kernel(), user memory with …_read_user()",
    ),
    (
        r"type=\S+ expected=|expected pointer to|is not a pointer|must be a",
        "a helper or function gets an argument of the wrong kind",
        "look up the argument's type in bpf-helpers(7); a pointer must come directly from a map, "
        "the stack or ctx",
    ),
    (
        r"[Aa]sync callback",
        "the callback of a timer, or of a work queue, may return only 0",
        "return 0; to run again later, call bpf_timer_start() in the callback",
    ),
    (
        r"callback function not static",
        "the callback is a global function, which would be verified by itself",
        "declare it static: static int callback(…)",
    ),
    (
        r"write to change key R\d not allowed",
        "the program changes the key of an element, by which the map finds it",
        "copy the key into a variable, and change that; to move the element, add it under the new key with "
        "bpf_map_update_elem(), and remove the old one with bpf_map_delete_elem()",
    ),
    (
        r"can only be used in a program that has an associated arena",
        "the program uses a pointer into an arena, but no map of type BPF_MAP_TYPE_ARENA",
        "declare the map, and use it in the program: bpf_arena_alloc_pages(&arena, NULL, 1, NUMA_NO_NODE, 0)",
    ),
    (
        r"At callback return",
        "a callback may return only 0 or 1",
        "return 0 to go on with the next element, and 1 to stop",
    ),
    (
        r"At program exit|should have been in|has (unknown scalar )?value .* (should|at program)",
        "programs of this type may not return that value",
        "return one of the values that the program type defines",
    ),
    (
        r"write into map forbidden",
        "the program writes to a const variable, or to a map that is read-only for it",
        "remove the const of the variable, or the flag BPF_F_RDONLY_PROG of the map",
    ),
    (
        r"cannot write into|rdonly|read-only",
        "the program writes to memory that is read-only for it",
        "change a copy, or use a map or argument that may be written",
    ),
    (
        r"[Ii]nvalid format string",
        "the format has a conversion that the kernel does not know",
        "use %d, %i, %u, %x, %ld, %lld, %llu, %c, %s, %p and its kinds (%pI4); there is no floating point",
    ),
    (
        r"^Global function \w+\(\) (?:doesn't|does not|return)",
        "a global function may return only a number, but this one returns another type",
        "declare it static, so that the verifier checks it at each call, or return a number",
    ),
    (
        r"^Caller passes invalid args into|^[Aa]rg#\d+ (?:reference )?type\b.*(?:size cannot|not supported)",
        "a global function is verified by itself: it takes only numbers, the context, and pointers to types "
        "of a known size, but this function, or this call of it, has another argument",
        "declare it static, so that the verifier checks it at each call with the real arguments; "
        "a kernel pointer may be marked __arg_trusted (Linux 6.9, libbpf 1.4)",
    ),
    (
        r"misaligned",
        "the access is not aligned to its size, as this kernel or this type of memory requires",
        "order the fields of the struct so that the field is aligned, or copy it with __builtin_memcpy()",
    ),
    (
        r"unreachable insn",
        "part of the program can never run",
        "remove the code after an unconditional return; compile with -O2",
    ),
    (
        r"invalid mem access",
        "the verifier does not know the memory, or does not allow this access to it",
        "use a pointer that comes directly from a map, the stack, the packet or the context",
    ),
]
_COMPILED = [
    (re.compile(pattern, re.MULTILINE), Explanation(why, fix)) for pattern, why, fix in (*SPECIAL, *_TABLE)
]


def advise(complaint: str) -> Explanation | None:
    """Returns the advice for a complaint; None for an unknown complaint."""
    for pattern, advice in _COMPILED:
        if pattern.search(complaint):
            return advice
    return None
