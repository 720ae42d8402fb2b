"""Explains a rejection by the rejected instruction and the registers."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.verifier.advice import OF_LENGTH
from pytest_bpfmaps.verifier.log import Rejection
from pytest_bpfmaps.verifier.numbered_advice import advise_in_numbers, short_check
from pytest_bpfmaps.verifier.source_advice import advise_by_source

_AFTER_RELEASE = Explanation(
    "the memory is used after its release",
    "move the use before the call that releases it, such as bpf_ringbuf_submit()",
)
_TWICE = Explanation(
    "the record was submitted or discarded before, and can't be submitted again",
    "submit or discard each record that was reserved exactly once",
)
_VARIABLE = Explanation(
    "the size has to be a number that is known when the program is compiled",
    "reserve sizeof(struct …), or send a variable size with bpf_ringbuf_output() or a dynptr",
)
_NO_PROGRAMS = Explanation(
    "bpf_tail_call() takes a program array, but that map has another type",
    "declare the map with __uint(type, BPF_MAP_TYPE_PROG_ARRAY), with keys and values of 4 bytes",
)
_FAR = Explanation(
    "the offset that was added to the packet pointer has no bound, or one that lets the end of the access be "
    "beyond 65535 bytes; a comparison with data_end does not help then",
    "bound the offset before you add it: offset &= 0x3fff; or if (offset > 1500) return …;",
)
_VARIABLE_OFFSET = Explanation(
    "the program touches packet bytes that it has not proven to be there",
    "compare with data_end first, and before that bound the offset that was added: offset &= 0x3fff;",
)
_NO_KEYS = Explanation(
    "the elements of such a map have no keys, so they can't be looked up, updated or deleted by key",
    "call the helpers of its type: bpf_map_push_elem(), _pop_elem(), _peek_elem() for queues and stacks, "
    "bpf_map_peek_elem() for bloom filters, bpf_ringbuf_…() for ring buffers",
)
_INTO_KERNEL = Explanation(
    "the helper writes to its first argument, but that is an address in the kernel, or in a process",
    "read into a variable of the program: bpf_probe_read_kernel(&copy, sizeof(copy), address)",
)
_IN_CONTEXT = Explanation(
    "the function gets an address inside of the context, but only the whole context may be passed",
    "copy the field into a variable, and give the variable's address: __u32 key = ctx->field; … &key",
)
_MOVED_CONTEXT = Explanation(
    "the program reads through a pointer that it has moved away from the beginning of the context",
    "read the fields from the context itself: ctx->FIELD",
)
_FORMAT = Explanation(
    "the format has to be a constant of the program, not a variable on the stack",
    'write static const char format[] = "%d"; or use the macro BPF_SNPRINTF(out, sizeof(out), "%d", …)',
)
_IN_A_VALUE = Explanation(
    "that argument has to be in the value of a map, but the helper gets a variable on the stack",
    "put it into the struct of a map's value, look the value up, and give its address: &value->FIELD",
)
# (pattern of the instruction, pattern of the complaint, advice), for complaints that do not explain the cause
_CALLS = (
    (r"^call ", r"dereference of modified ctx", _IN_CONTEXT),
    (r"call bpf_snprintf\b", r"^R3 type=\S+ expected=map_value", _FORMAT),
    (r"call bpf_(?:timer_\w+|spin_(?:un)?lock|kptr_xchg)\b", r"^R1 type=fp expected=map_value", _IN_A_VALUE),
    (r"call bpf_map_(?:lookup|update|delete)_elem\b", r"invalid zero-sized read", _NO_KEYS),
    (r"call bpf_probe_read", r"^R1 type=(?:scalar|inv) expected=", _INTO_KERNEL),
    (r"call bpf_ringbuf_(?:submit|discard)\b", r"\btype=\S+ expected=", _TWICE),
    (r"call bpf_ringbuf_reserve\b", r"is not a known constant|unbounded size", _VARIABLE),
    (r"call bpf_tail_call\b", r"prog array|misconfigured verifier", _NO_PROGRAMS),
)
_NULL = ("0", "inv0", "scalar(0)")
_IS_NULL = Explanation(
    "the pointer is NULL there: on that path, or for that caller, it is 0",
    "give it an address; a callback gets the address that bpf_loop(), or another helper, is given for it: "
    "bpf_loop(n, callback, &context, 0)",
)
_OWNED = ("ringbuf_mem", "alloc_mem", "mem(ref", "mem(id", "sock", "tcp_sock", "ptr_", "trusted_ptr_")
_RELEASES = re.compile(r"call bpf_(?:ringbuf_(?:submit|discard)(?:_dynptr)?|\w+_release)\b")
_SLICED = re.compile(r"call bpf_dynptr_data\b.*call bpf_ringbuf_(?:submit|discard)_dynptr\b", re.DOTALL)
_NOT_A_POINTER = re.compile(r"(R\d+) invalid mem access '(?:scalar|inv)'")
_PACKET = re.compile(r"invalid access to packet.*\b(R\d+)\((id=0)?")
_FIXED = re.compile(r"invalid access to packet, off=(\d+) size=(\d+)")
_MOST = re.compile(r"\bumax(?:=smax)?(?:=\w+)*?=(0x[0-9a-f]+|\d+)")
_MAX_PACKET_OFF = 0xFFFF


def advise_closer(found: Rejection) -> Explanation | None:
    """Returns advice from the instructions and registers; None if they do not explain the complaint."""
    if told := _of_call(found) or advise_by_source(found):
        return told
    if _NO_RESULT.search(found.text) and not found.instruction.startswith("exit"):
        return _EMPTY
    if beyond := _BEYOND_STACK.search(found.text):
        return _beyond_variable(found, int(beyond[1]), int(beyond[2]))
    if short := _short_value(found):
        return short
    if (context := _MOVED.search(found.text)) and _is_constant(found.registers.get(context[1], "")):
        return _MOVED_CONTEXT
    if found.instruction.startswith("call bpf_") and _LENGTH.search(found.text):
        return _of_argument(found)
    if told := (_in_global(found) if found.function else None) or advise_in_numbers(found):
        return told
    if found.acquired:
        return _release_of(found.acquired.instruction)
    if wrong := _NOT_A_POINTER.search(found.text):
        if moved := _moved_packet(found, wrong[1]):
            return moved
        # old kernels do not show the state of registers; then an earlier release is enough
        state = found.registers.get(wrong[1])
        if state in _NULL:
            return _IS_NULL
        if _SLICED.search("\n".join(s.instruction for s in found.steps.values())):
            return _AFTER_RELEASE
        released = any(_RELEASES.search(s.instruction) for s in found.steps.values())
        return _AFTER_RELEASE if released and (not state or state.startswith(_OWNED)) else None
    return _beyond_packet(found)


def _of_call(found: Rejection) -> Explanation | None:
    for call, complaint, advice in _CALLS:
        if re.search(call, found.instruction) and re.search(complaint, found.text, re.MULTILINE):
            return advice
    return None


def _beyond_packet(found: Rejection) -> Explanation | None:
    packet = _PACKET.search(found.text)
    if packet is None:
        return None
    if short := short_check(found.text):
        return short
    most = _MOST.search(found.registers.get(packet[1], ""))
    if most:
        fixed = _FIXED.search(found.text)  # what is added to the variable offset
        end = int(most[1], 0) + (int(fixed[1]) + int(fixed[2]) if fixed else 0)
        return _FAR if end > _MAX_PACKET_OFF else None
    return None if packet[2] else _VARIABLE_OFFSET


_LENGTH = re.compile(
    r"unbounded memory access|R\d min value is negative|"
    r"invalid access to map value, value_size=\d+ off=\d+ size=(?:\d{5,}|0)\b"
)
_NEGATIVE = re.compile(r"(R\d) (?:min value is negative|unbounded memory access)")
_OF_OFFSET = Explanation(
    "the number that was added to the pointer may be negative, or larger than the memory: the result of a "
    "helper is negative when it fails",
    "keep it in 64 bits, and bound it right before you add it: "
    "__s64 n; if (n < 0 || n > SIZE - LENGTH) return 0;",
)


def _of_argument(found: Rejection) -> Explanation:
    negative = _NEGATIVE.search(found.text)
    state = found.registers.get(negative[1], "") if negative else ""
    return _OF_OFFSET if state.startswith(("map_value", "fp", "mem", "alloc_mem", "ringbuf")) else OF_LENGTH


_NO_RESULT = re.compile(r"^R0 !read_ok", re.MULTILINE)
_EMPTY = Explanation(
    "the program uses the result of a function that returns nothing",
    "declare the function as void, and don't use its result; or give the variable a value first",
)
_BEYOND_STACK = re.compile(r"stack (?:type )?(?:R\d+ )?off=(-\d+) (?:access_)?size=(\d+)")
_OF_A_MAP = re.compile(r"call bpf_map_(?:lookup|update|delete|push|peek|pop)_\w+")


def _beyond_variable(found: Rejection, offset: int, size: int) -> Explanation | None:
    """Explains that a helper reads or writes more than a variable on the stack has; else None."""
    if offset + size <= 0:
        return None
    why = f"the helper needs {size} bytes there, but the variable has at most {-offset}"
    if _OF_A_MAP.search(found.instruction):
        return Explanation(
            why, f"declare the variable with the type of the map's key, or value, which has {size} bytes"
        )
    return Explanation(
        why, "give the helper the size of the variable, sizeof(variable), or make the variable larger"
    )


_MOVED = re.compile(r"dereference of modified ctx ptr (R\d) off=-?\d+ disallowed")


def _is_constant(state: str) -> bool:
    """Returns whether a register's offset is a constant; False where the log does not show the register."""
    return bool(state) and "max" not in state and "var_off" not in state


_SHORT_VALUE = re.compile(r"invalid access to map value, value_size=(\d+) off=(\d+) size=(\d+)")


def _short_value(found: Rejection) -> Explanation | None:
    """Explains that a key or value that is given to a map is too small, such as a literal text; else None."""
    short = _SHORT_VALUE.search(found.text)
    if short is None or not _OF_A_MAP.search(found.instruction):
        return None
    size, offset, needed = map(int, short.groups())
    return Explanation(
        f"the map's key, or value, has {needed} bytes, but what is given has {max(size - offset, 0)}",
        f'give a variable of the map\'s type: char key[{needed}] = "text"; with its address, &key',
    )


def _in_global(found: Rejection) -> Explanation | None:
    """Explains what the verifier does not know in a global function, which it verifies by itself."""
    alone = f"{found.function}() is a global function, which is verified by itself: "
    static = "declare it static, so that the verifier checks it at each call; or "
    if re.search(r"invalid mem access 'mem_or_null'", found.text):
        return Explanation(
            f"{alone}there its pointer may be NULL, whatever the callers pass",
            f"{static}if the pointer is to the stack or a map, check it first: if (!pointer) return 0;",
        )
    if size := re.search(r"\bmem_size=(\d+)\b", found.text):
        return Explanation(
            f"{alone}there its pointer is to {size[1]} bytes, the size of the type that it points to",
            f"{static}declare a pointer to the whole object: to a struct, or to an array, char (*text)[16]",
        )
    return None


_MOVES = re.compile(
    r"call (bpf_(?:skb_(?:pull_data|change_\w+|adjust_room|store_bytes|vlan_\w+)|clone_redirect|"
    r"l[34]_csum_replace|xdp_adjust_\w+|msg_(?:pull|push|pop)_data|lwt_push_encap|sk_assign_tcp_reqsk))\b"
)


def _moved_packet(found: Rejection, register: str) -> Explanation | None:
    """Explains that a packet pointer was read before a helper that may move the packet; else None."""
    calls = [m[1] for s in found.steps.values() if (m := _MOVES.search(s.instruction))]
    state = found.registers.get(register, "")
    if not calls and state.startswith("pkt"):  # a global function, whose steps are not in this log
        return _moved("a function that is called before")
    if not calls or (state and not state.startswith(("pkt", "inv", "scalar"))):
        return None
    return _moved(f"{calls[-1]}()")


def _moved(by: str) -> Explanation:
    return Explanation(
        f"{by} may move the packet: pointers from before the call are not valid after it",
        "read data and data_end again after the call, and compare them again",
    )


# the function that acquires: the function that releases
_COUNTERPARTS = {
    "bpf_ringbuf_reserve": "bpf_ringbuf_submit() or bpf_ringbuf_discard()",
    "bpf_ringbuf_reserve_dynptr": "bpf_ringbuf_submit_dynptr() or bpf_ringbuf_discard_dynptr()",
    "bpf_sk_lookup_tcp": "bpf_sk_release()",
    "bpf_sk_lookup_udp": "bpf_sk_release()",
    "bpf_skc_lookup_tcp": "bpf_sk_release()",
    "bpf_task_acquire": "bpf_task_release()",
    **dict.fromkeys(("bpf_task_from_pid", "bpf_task_from_vpid"), "bpf_task_release()"),
    "bpf_cgroup_acquire": "bpf_cgroup_release()",
    **dict.fromkeys(("bpf_cgroup_from_id", "bpf_cgroup_ancestor"), "bpf_cgroup_release()"),
    **dict.fromkeys(("bpf_cpumask_create", "bpf_cpumask_acquire"), "bpf_cpumask_release()"),
    **dict.fromkeys(
        (
            *("bpf_obj_new_impl", "bpf_obj_new", "bpf_refcount_acquire_impl", "bpf_refcount_acquire"),
            *("bpf_list_pop_front", "bpf_list_pop_back", "bpf_rbtree_remove"),
        ),
        "bpf_obj_drop(), or put it into a list or tree,",
    ),
    **dict.fromkeys(("bpf_percpu_obj_new_impl", "bpf_percpu_obj_new"), "bpf_percpu_obj_drop()"),
    "bpf_get_task_exe_file": "bpf_put_file()",
    **dict.fromkeys(("bpf_lookup_user_key", "bpf_lookup_system_key"), "bpf_key_put()"),
    **dict.fromkeys(("bpf_crypto_ctx_create", "bpf_crypto_ctx_acquire"), "bpf_crypto_ctx_release()"),
    **dict.fromkeys(("bpf_xdp_ct_lookup", "bpf_skb_ct_lookup"), "bpf_ct_release()"),
    **dict.fromkeys(("bpf_xdp_ct_alloc", "bpf_skb_ct_alloc"), "bpf_ct_release() or bpf_ct_insert_entry()"),
    "bpf_xdp_get_xfrm_state": "bpf_xdp_xfrm_state_release()",
    "bpf_kptr_xchg": "the kfunc that releases it",
}


def _release_of(call: str) -> Explanation | None:
    """Explains which function releases what the instruction `call` acquired; None if it is not known."""
    found = re.search(r"bpf_\w+", call)
    counterpart = _COUNTERPARTS.get(found[0]) if found else None
    if found and (iterator := re.fullmatch(r"(bpf_iter_\w+)_new", found[0])):
        counterpart = f"{iterator[1]}_destroy()"
    if found is None or counterpart is None:
        return None
    return Explanation(
        f"the result of {found[0]}() is not released on some path",
        f"call {counterpart} on every path that leaves the program, also before early returns",
    )
