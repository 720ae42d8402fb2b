"""What a verifier's complaint means, in a plain sentence, and what to do about it."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.verifier.special_advice import SPECIAL

OF_LENGTH = Explanation(
    "the length may be 0, negative, or larger than the buffer",
    "bound it on both sides right before the call, in 64 bits with a sign, so that clang leaves both: "
    "__s64 len; if (len > SIZE) return 0; barrier_var(len); if (len < 1) return 0;",
)
_TABLE: list[tuple[str, str, str | None]] = [
    (
        r"progs cannot use bpf_(?:spin_lock|res_spin_lock|timer|wq|list_head|rb_root)",
        "programs of this type may not use maps whose values have such a special field",
        "count with __sync_fetch_and_add(), or in a per-CPU map; the field is for programs of the network",
    ),
    (
        r"doesn't have \d+-th argument|^func '\w+' arg\d+ '\(anon\)' has type UNKNOWN",
        "the program declares more parameters than the kernel's function or hook has",
        "declare those that it has, as vmlinux.h does; the return value follows the last one, for fexit, "
        "fmod_ret and lsm only, and a void function has none",
    ),
    (
        r"\(\) has \d+ args while|(?:Return type|arg\d+) \S+.* (?:of|in) \S+\(\) (?:doesn't match|has type)",
        "the replacement is not declared as the function that it replaces",
        "give it the same parameters, of the same types, and the same return type",
    ),
    (
        r"math between ctx pointer|variable ctx access|dereference of modified ctx",
        "a field of the context is read at an offset that is not constant, which no bound makes allowed",
        "copy the fields one by one into a local array, and index that within its bounds",
    ),
    (
        r"does not point to a readonly map",
        "that argument has to be text which can't change, and this is in memory that can be written",
        'declare it const and global: const char text[16] = "…";',
    ),
    (
        r"must be referenced or trusted|is not a (?:trusted|referenced)|must be a rcu pointer|"
        r"pointer type STRUCT \w+ must point to scalar",
        "the kernel function wants a pointer that the verifier knows to be valid, and this is an address",
        "take it from bpf_get_current_task_btf(), an argument of the program (tp_btf, lsm, fentry), or a "
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
        "the program calls a helper that is for programs under the GPL only, and its licence is not",
        'declare it: char LICENSE[] SEC("license") = "GPL";',
    ),
    (
        r"GPL[- ]compatible",
        "programs of this type have to be under the GPL, and this one's licence is not",
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
        "the program is sleepable, and what it is attached to is called where nothing may sleep",
        'take the ".s" from its section: SEC("fentry/…"), SEC("lsm/…"); or take a function or hook that '
        "may sleep",
    ),
    (
        r"[Ss]leepable programs can only use",
        "a sleepable program may not use maps of this type",
        'take the ".s" from its section, or keep the data in an array, a hash map that is preallocated, '
        "or a ring buffer",
    ),
    (
        r"sleepable (?:helper|kfunc) \S+ (?:in|within) (?!non-sleepable prog)|is sleepable within",
        "the call may sleep, and stands where nothing may sleep: in a region of bpf_rcu_read_lock(), "
        "bpf_preempt_disable(), bpf_local_irq_save() or a lock, or in a callback",
        "end the region before the call, with its counterpart, and begin it again behind it",
    ),
    (
        r"(?:Only|only) .* can be sleepable|cannot be sleepable",
        "programs of this type can't be sleepable",
        'take the ".s" from its section',
    ),
    (
        r"might sleep|must be sleepable|is sleepable but the program is not|in non-sleepable prog|"
        r"unknown func bpf_(?:copy_from_user|ima_)",
        "the program calls something that may sleep, and is not sleepable itself",
        'make the program sleepable (SEC("fentry.s/…"), "lsm.s/…", "uprobe.s/…"), or call what '
        "does not sleep: bpf_probe_read_user() for bpf_copy_from_user()",
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
        "driver, and the program is not loaded for an interface",
        'load it for one: bpf.load(…, programs={"NAME": {"ifindex": interface.index, "flags": 64}}), '
        "64 being BPF_F_XDP_DEV_BOUND_ONLY, inside its network namespace, and attach it there",
    ),
    (
        r"metadata kfuncs can't be offloaded",
        "the program calls a kfunc for metadata, and is loaded for the hardware of an interface",
        "add 64, BPF_F_XDP_DEV_BOUND_ONLY, to its flags, so that it runs on the CPU",
    ),
    (
        r"calling kernel function \S+ is not allowed",
        "this type of program may not call that kernel function, or not on this kernel",
        "see the function's registration (BTF_KFUNCS_START) in the kernel for the types that may",
    ),
    (
        r"only read is supported|cannot write into ptr_|is a pointer to a read-only|write to R\d+ .*ptr_",
        "the program writes to a struct of the kernel, which it may only read",
        "change it through a helper or kernel function, if there is one; a copy can be changed freely",
    ),
    (
        r"cannot pass map_type \d+ into func",
        "that helper is not for maps of this type",
        "bpf-helpers(7) says for which it is: bpf_map_push_elem() for queues, stacks and bloom filters, "
        "bpf_ringbuf_…() for ring buffers, bpf_…_storage_get() for storage",
    ),
    (
        r"has no valid bpf_(?:timer|spin_lock|wq|kptr)|has to be at the constant offset|is mangled$|"
        r"doesn't have 'struct bpf_",
        "the map's value has no such special field (timer, lock, work queue) where the program says",
        "put a struct bpf_timer, or bpf_spin_lock, into the struct that is the map's value; give its address",
    ),
    (r"invalid zero-sized read", OF_LENGTH.why, OF_LENGTH.fix),
    (
        r"BPF_STX uses reserved fields|BPF_ATOMIC uses invalid",
        "this kernel's only atomic operation is an addition without a result (the others came with 5.12)",
        "don't use the result of __sync_fetch_and_add(); or take a bpf_spin_lock in the map's value",
    ),
    (
        r"unknown opcode 8d\b",
        "the program calls a function through a pointer, and BPF has no such calls",
        "call each function by its name, in an if or a switch; or make them programs, for bpf_tail_call()",
    ),
    (
        r"unknown opcode|uses reserved fields|unknown insn",
        "the program has an instruction that this kernel does not know",
        "compile it for an older instruction set: cflags=['-mcpu=v3'], v2 or v1",
    ),
    (
        r"pointer arithmetic on pkt_end prohibited|invalid mem access 'pkt_end'",
        "data_end can be compared with, and nothing can be added to it, taken from it, or read there",
        "go from the packet's own pointer: if (data + SIZE > data_end) return …;",
    ),
    (
        r"pointer arithmetic (?:on (?!\S*_or_null)|with)|bitwise operator|32-bit pointer arithmetic|"
        r"pointer \S+ pointer prohibited|subtract pointer from scalar|subtraction from stack pointer",
        "that is arithmetic with a pointer which BPF does not allow",
        "calculate with a number, an offset, and add it to the pointer at last; of a context, a socket or a "
        "struct of the kernel's name the field instead",
    ),
    (
        r"recursive call from|call stack of \d+ frames is too deep",
        "the functions call each other too deep: one calls itself, or more than 8 calls are in each other",
        "make a loop of the recursion, with a bound, or mark small functions __always_inline",
    ),
    (
        r"number of funcs in func_info doesn't match",
        "the program calls through a pointer, which no kernel knows, or gives a helper a function to call "
        "back, which this kernel does not know (5.13 does)",
        "call each function by its name; for a helper write the loop out, with a bound, or mark the test "
        'bpf_requires("bpf_for_each_map_elem")',
    ),
    (
        r"has to have BTF in order to use",
        "the kernel has refused the types of that map: values of maps of its type may not have such a field, "
        "or it is there twice, or at an offset that is no multiple of its alignment",
        "put one bpf_timer, bpf_spin_lock or bpf_wq into the values of a hash or array, not of a per-CPU "
        "map, nor a lock into those of an LRU; without __attribute__((packed))",
    ),
    (
        r"_or_null_?'|_or_null_? prohibited|_or_null expected|[Pp]ossibly NULL",
        "the pointer may be NULL: the result of a lookup or a reservation was not checked",
        "check it before it is used: if (!pointer) return 0;",
    ),
    (
        r"cannot access ptr member|access beyond (?:struct|the end of member)",
        "the program reads a struct of the kernel at a place, or in a size, that no field of it has",
        "give the pointer the type of the struct, struct file *f = (void *)ctx[0];, and read its fields",
    ),
    (
        r"failed to find the address for kernel symbol",
        "the kernel's types have that variable, and its list of symbols has not (CONFIG_KALLSYMS_ALL is off)",
        "take a kernel that lists it: pytest --bpf-kernel=6.1",
    ),
    (
        r"invalid access to packet|outside of the packet",
        "the program touches packet bytes that it has not proven to be there",
        "compare with data_end first (optval_end of a sockopt program): if ((void *)(header + 1) > data_end) "
        "return …; and use that same pointer",
    ),
    (
        r"invalid (?:variable-offset )?read from stack R\d+ off=\d",
        "the program reads beyond the end of a variable on the stack, and of the stack itself",
        "read no more than the variable has, sizeof(variable), or make it larger",
    ),
    (
        r"invalid (indirect )?(read|access)[^\n]* (from|to) stack|invalid read from stack|"
        r"invalid indirect access to stack",
        "the program reads stack bytes that it has never written",
        "initialise the whole variable, padding too: struct event event = {}; or __builtin_memset()",
    ),
    (
        r"stack size of \d+ calls|stack off|invalid (write|access) to stack|invalid stack|Too large",
        "the program needs more than its 512 bytes of stack, or reaches outside of it",
        "keep large variables in a per-CPU array map, or in ring buffer memory, instead of on the stack",
    ),
    (
        r"R0 !read_ok",
        "the program can end without a return value",
        "return a number on every path; where there is one, clang dropped it behind what C leaves undefined, "
        "a division by 0 or a variable without a value: compile with cflags=['-Wall']",
    ),
    (
        r"!read_ok|uninitialized",
        "the program uses a variable that has no value on some path; calls also wipe registers R1 to R5",
        "give the variable a value where it is declared",
    ),
    (
        r"reference leak|Unreleased reference",
        "something that was acquired is not released on some path: a ring buffer record, a socket, a task",
        "call its counterpart on every path: bpf_ringbuf_submit() or _discard(), bpf_sk_release(), …",
    ),
    (
        r"back-edge|infinite loop",
        "a loop, or a function that calls itself, has no end that the verifier can see",
        "bound it by a constant, or use bpf_for(), bpf_loop() or bpf_repeat(); make a loop of a recursion",
    ),
    (
        r"too complex|too large\. Processed|program is too large|too many states",
        "the verifier gave up: the program has too many paths or instructions to follow",
        "shorten or bound loops (bpf_loop()), and put parts into global (non-static) functions, "
        "verified once",
    ),
    (
        r"unbounded|min value is negative|max value is outside|outside of the allowed memory|"
        r"invalid access to map value|make sure its bounds|out of bounds",
        "an index, offset or length can be larger, or smaller, than the memory that it is used with",
        "bound it right before the access: if (i >= SIZE) return 0; or i &= SIZE - 1, with an unsigned type",
    ),
    (
        r"invalid bpf_context access|dereference of modified ctx",
        "this program type does not let that field of its context be read, or written, in that size",
        "read the field whole, as the context's struct declares it; see its is_valid_access in the kernel",
    ),
    (
        r"invalid mem access '(inv|scalar)'",
        "a plain number is used as a pointer: the memory is not known to the verifier",
        "read kernel memory with BPF_CORE_READ() or bpf_probe_read_kernel(), user memory with …_read_user()",
    ),
    (
        r"type=\S+ expected=|expected pointer to|is not a pointer|must be a",
        "a helper or function gets an argument of the wrong kind",
        "look at the argument's type in bpf-helpers(7); a pointer must come straight from a map, "
        "the stack or ctx",
    ),
    (
        r"At callback return",
        "a function that is called back may return 0 or 1 only",
        "return 0 to go on with the next, and 1 to stop",
    ),
    (
        r"At program exit|should have been in|has (unknown scalar )?value .* (should|at program)",
        "the return value is outside of what this program type may return",
        "return one of the values that the program type defines",
    ),
    (
        r"write into map forbidden",
        "the program writes to a const variable, or to a map that is read-only for it",
        "leave out the const of the variable, or the flag BPF_F_RDONLY_PROG of the map",
    ),
    (
        r"cannot write into|rdonly|read-only",
        "the program writes to memory that is read-only for it",
        "copy what is to be changed, or take a map or argument that may be written",
    ),
    (
        r"[Ii]nvalid format string",
        "the format has a conversion that the kernel does not know",
        "take %d, %i, %u, %x, %ld, %lld, %llu, %c, %s, %p and its kinds (%pI4); there is no floating point",
    ),
    (
        r"^Global function \w+\(\) (?:doesn't|does not|return)",
        "a global function may return a number only, and this one returns something else",
        "declare it static, so that the verifier follows it where it is called, or return a number",
    ),
    (
        r"^Caller passes invalid args into|^[Aa]rg#\d+ (?:reference )?type\b.*(?:size cannot|not supported)",
        "a global function is verified by itself: it takes numbers, the context, and pointers to types of a "
        "known size, and this one, or this call of it, has something else",
        "declare it static, so that the verifier follows it where it is called and knows what is passed; "
        "a pointer of the kernel's may be marked __arg_trusted (Linux 6.9, libbpf 1.4)",
    ),
    (
        r"misaligned",
        "the access is not aligned to its size, which this kernel or type of memory demands",
        "lay the struct out so that the field is aligned, or copy it with __builtin_memcpy()",
    ),
    (
        r"unreachable insn",
        "part of the program can never run",
        "remove the code behind an unconditional return; compile with -O2",
    ),
    (
        r"invalid mem access",
        "the memory is not known to the verifier, or may not be reached that way",
        "use a pointer that comes straight from a map, the stack, the packet or the context",
    ),
]
_COMPILED = [
    (re.compile(pattern, re.MULTILINE), Explanation(why, fix)) for pattern, why, fix in (*SPECIAL, *_TABLE)
]


def advise(complaint: str) -> Explanation | None:
    """The advice for a complaint; None for one that is not known."""
    for pattern, advice in _COMPILED:
        if pattern.search(complaint):
            return advice
    return None
