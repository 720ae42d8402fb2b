"""What a verifier's complaint means, in a plain sentence, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .log import Rejection


@dataclass(frozen=True, slots=True)
class Advice:
    """`why` the program is rejected, `fix` what to change."""

    why: str
    fix: str


_TABLE: list[tuple[str, str, str]] = [
    (
        r"progs cannot use bpf_(?:spin_lock|res_spin_lock|timer|wq|list_head|rb_root)",
        "programs of this type may not use maps whose values have such a special field",
        "count with __sync_fetch_and_add(), or in a per-CPU map; the field is for programs of the network",
    ),
    (
        r"doesn't have \d+-th argument",
        "the program declares more parameters than the kernel's function or hook has",
        "declare those that it has, as vmlinux.h does; the return value follows the last one, for fexit, "
        "fmod_ret and lsm only",
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
        r"inside bpf_spin_lock|function calls are not allowed while holding a lock|while holding a lock",
        "the program does something between bpf_spin_lock() and bpf_spin_unlock() that is not allowed there",
        "keep calls and further lookups out of the locked region",
    ),
    (
        r"cannot call GPL|GPL[- ]compatible|GPL only",
        "the program calls a helper that is for programs under the GPL only, and its licence is not",
        'declare it: char LICENSE[] SEC("license") = "GPL";',
    ),
    (
        r"invalid func unknown#195896080|CO-RE relocation",
        "the program uses a field or type that this kernel does not have (a CO-RE relocation failed)",
        "guard it with bpf_core_field_exists() or bpf_core_type_exists(), or name the field as "
        "this kernel does",
    ),
    (
        r"might sleep|sleepable|unknown func bpf_(copy_from_user|ima_)",
        "the program calls something that may sleep, or uses something that only sleepable programs may",
        'make the program sleepable (SEC("fentry.s/…"), "lsm.s/…", "uprobe.s/…"), or call what '
        "does not sleep",
    ),
    (
        r"unknown func|cannot use helper|invalid func unknown",
        "this kernel has no such helper, or does not allow it in this type of program",
        "see 'bpftool feature probe' for the helpers of each program type; mark the test "
        "bpf_requires(helper=…)",
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
        r"has no valid bpf_(?:timer|spin_lock|wq|kptr)|has to be at the constant offset",
        "the map's value has no such special field (timer, lock, work queue) where the program says",
        "put a struct bpf_timer, or bpf_spin_lock, into the struct that is the map's value; give its address",
    ),
    (
        r"invalid zero-sized read",
        "the length may be 0, or larger than the buffer",
        "bound it on both sides right before the call: if (len == 0 || len > sizeof(buf)) return 0;",
    ),
    (
        r"unknown opcode|uses reserved fields|unknown insn",
        "the program has an instruction that this kernel does not know",
        "compile it for an older instruction set: cflags=['-mcpu=v3'], v2 or v1",
    ),
    (
        r"_or_null'|possibly NULL|Possibly NULL|_or_null expected",
        "the pointer may be NULL: the result of a lookup or a reservation was not checked",
        "check it before it is used: if (!pointer) return 0;",
    ),
    (
        r"invalid access to packet|outside of the packet",
        "the program touches packet bytes that it has not proven to be there",
        "compare with data_end first: if ((void *)(header + 1) > data_end) return …; and use that "
        "same pointer",
    ),
    (
        r"invalid (indirect )?(read|access)[^\n]* (from|to) stack|invalid read from stack|"
        r"invalid indirect access to stack|invalid unbounded variable-offset",
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
        "return a number on every path",
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
        "a loop has no end that the verifier can see",
        "bound it by a constant, or use bpf_for(), bpf_loop() or bpf_repeat()",
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
        r"At program exit|should have been in|has (unknown scalar )?value .* (should|at program)",
        "the return value is outside of what this program type may return",
        "return one of the values that the program type defines",
    ),
    (
        r"cannot write into|write into map forbidden|rdonly|read-only",
        "the program writes to memory that is read-only for it",
        "copy what is to be changed, or take a map or argument that may be written",
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
_COMPILED = [(re.compile(pattern), Advice(why, fix)) for pattern, why, fix in _TABLE]


def advise(complaint: str) -> Advice | None:
    """The advice for a complaint; None for one that is not known."""
    for pattern, advice in _COMPILED:
        if pattern.search(complaint):
            return advice
    return None


_AFTER_RELEASE = Advice(
    "the memory was given back before that: it is used after its release",
    "move the use before bpf_ringbuf_submit() or whatever releases it",
)
_TWICE = Advice(
    "what is submitted is no record any more: it was submitted or discarded before",
    "submit or discard each record that was reserved exactly once",
)
_VARIABLE = Advice(
    "the size has to be a number that is known when the program is compiled",
    "reserve sizeof(struct …), or give a variable amount with bpf_ringbuf_output() or a dynptr",
)
_NO_PROGRAMS = Advice(
    "bpf_tail_call() takes a program array, and that is another type of map",
    "declare the map with __uint(type, BPF_MAP_TYPE_PROG_ARRAY), with keys and values of 4 bytes",
)
_FAR = Advice(
    "the offset that was added to the packet pointer has no bound, so no comparison with data_end helps",
    "bound it before it is added: offset &= 0x3fff; or if (offset > 1500) return …;",
)
_VARIABLE_OFFSET = Advice(
    "the program touches packet bytes that it has not proven to be there",
    "compare with data_end first, and bound what was added to the pointer before: offset &= 0x3fff;",
)
# by the instruction, and by the complaint; kernels put some of them in words that say little
_CALLS = (
    (r"call bpf_ringbuf_(?:submit|discard)\b", r"\btype=\S+ expected=", _TWICE),
    (r"call bpf_ringbuf_reserve\b", r"is not a known constant|unbounded size", _VARIABLE),
    (r"call bpf_tail_call\b", r"prog array|misconfigured verifier", _NO_PROGRAMS),
)
_OWNED = ("ringbuf_mem", "alloc_mem", "mem(ref", "mem(id", "sock", "tcp_sock", "ptr_", "trusted_ptr_")
_RELEASES = re.compile(r"call bpf_(?:ringbuf_(?:submit|discard)|\w+_release)\b")
_NOT_A_POINTER = re.compile(r"(R\d+) invalid mem access '(?:scalar|inv)'")
_PACKET = re.compile(r"invalid access to packet.*\b(R\d+)\((id=0)?")
_MOST = re.compile(r"\bumax(?:=smax)?(?:=\w+)*?=(0x[0-9a-f]+|\d+)")
_MAX_PACKET_OFF = 0xFFFF


def advise_closer(found: Rejection) -> Advice | None:
    """What the instructions and registers say beyond the complaint; None when that is nothing."""
    for call, complaint, advice in _CALLS:
        if re.search(call, found.instruction) and re.search(complaint, found.text):
            return advice
    if found.acquired:
        return _release_of(found.acquired.instruction)
    if wrong := _NOT_A_POINTER.search(found.text):
        if moved := _moved_packet(found, wrong[1]):
            return moved
        # without the state of registers, which old kernels don't show, a release that came before has to do
        state = found.registers.get(wrong[1])
        released = any(_RELEASES.search(s.instruction) for s in found.steps.values())
        return _AFTER_RELEASE if released and (state or _OWNED[0]).startswith(_OWNED) else None
    if packet := _PACKET.search(found.text):
        most = _MOST.search(found.registers.get(packet[1], ""))
        if most:
            return _FAR if int(most[1], 0) > _MAX_PACKET_OFF else None
        return None if packet[2] else _VARIABLE_OFFSET
    return None


_MOVES = re.compile(
    r"call (bpf_(?:skb_(?:pull_data|change_\w+|adjust_room|store_bytes|vlan_\w+)|clone_redirect|"
    r"l[34]_csum_replace|xdp_adjust_\w+|msg_(?:pull|push|pop)_data|lwt_push_encap|sk_assign_tcp_reqsk))\b"
)


def _moved_packet(found: Rejection, register: str) -> Advice | None:
    """For a packet's pointer that was read before a helper that may move the packet."""
    calls = [m[1] for s in found.steps.values() if (m := _MOVES.search(s.instruction))]
    state = found.registers.get(register, "")
    if not calls or (state and not state.startswith(("pkt", "inv", "scalar"))):
        return None
    return Advice(
        f"{calls[-1]}() may move the packet: pointers into it from before the call are void",
        "read data and data_end again behind the call, and compare them again",
    )


# what releases, by what acquires
_COUNTERPARTS = {
    "bpf_ringbuf_reserve": "bpf_ringbuf_submit() or bpf_ringbuf_discard()",
    "bpf_ringbuf_reserve_dynptr": "bpf_ringbuf_submit_dynptr() or bpf_ringbuf_discard_dynptr()",
    "bpf_sk_lookup_tcp": "bpf_sk_release()",
    "bpf_sk_lookup_udp": "bpf_sk_release()",
    "bpf_skc_lookup_tcp": "bpf_sk_release()",
    "bpf_task_acquire": "bpf_task_release()",
    "bpf_task_from_pid": "bpf_task_release()",
    "bpf_cgroup_acquire": "bpf_cgroup_release()",
    "bpf_cgroup_from_id": "bpf_cgroup_release()",
    "bpf_cpumask_create": "bpf_cpumask_release()",
    "bpf_obj_new_impl": "bpf_obj_drop(), or put it into a list or tree,",
    "bpf_kptr_xchg": "the kfunc that releases it",
}


def _release_of(call: str) -> Advice | None:
    """For an instruction that acquired what is not released on some path; None for one that is not known."""
    found = re.search(r"bpf_\w+", call)
    counterpart = _COUNTERPARTS.get(found[0]) if found else None
    if found is None or counterpart is None:
        return None
    return Advice(
        f"what {found[0]}() gave is not released on some path",
        f"call {counterpart} on every path that leaves the program, the early returns too",
    )
