"""Explains a rejection by what the rejected C line, or a register, says besides the complaint."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.verifier.log import Rejection

_READ = re.compile(r"\b((?:BPF_CORE|BPF_PROBE)_READ(?:_USER)?)\(([^()]*->[^()]*)\)")
_OR = Explanation(
    "clang has made an OR of an addition to a pointer, and BPF allows no OR with a pointer",
    "hide the number from clang right before you add it: barrier_var(offset); pointer + offset",
)
_NUMBER = re.compile(r"(R\d+) invalid mem access '(?:scalar|inv)'")
_KEPT = Explanation(
    "a pointer that was kept in a map or a global variable is a plain number when the program reads it again",
    "get a pointer to the packet or to a map's value anew, from ctx->data or by a lookup; read memory of the "
    "kernel with BPF_CORE_READ() or bpf_probe_read_kernel(), and user memory with …_read_user()",
)
_META = Explanation(
    "the program touches bytes in front of the packet (its metadata) that it has not proven to be there",
    "compare with the packet's begin, not with its end: if (meta + SIZE > (void *)(long)ctx->data) return …;",
)
_GLOBAL_LOCK = Explanation(
    "the lock is a global variable, which this kernel does not support",
    "put the lock into the value of an array map, and look that value up; global locks work from "
    "Linux 6.2 on",
)
_OF_DATA = re.compile(
    r"map '[^']*\.(?:bss|data)[^']*' (?:is not a struct type or bpf_spin_lock is mangled|"
    r"doesn't have 'struct bpf_spin_lock')"
)
_SECOND_LOCK = Explanation(
    "the program takes a second lock while it holds the first",
    "call bpf_spin_unlock() for the first before bpf_spin_lock() for the second; what has to change "
    "together needs one lock",
)
_RESILIENT = Explanation(
    "a path leaves the region of a bpf_res_spin_lock() without bpf_res_spin_unlock()",
    "call bpf_res_spin_unlock() on every path before the return on which bpf_res_spin_lock() returned 0",
)
_NOT_OWNED = re.compile(r"must be referenced or trusted|bpf_obj_drop\w* expects referenced")
_GIVEN_AWAY = Explanation(
    "the object belongs to a list or tree since it was put there, and may not be used or released any more",
    "use it before that, or take it out again: bpf_list_pop_front(), bpf_rbtree_remove()",
)
_COPIES = re.compile(r"\bstruct\s+\w+\s+\w+\s*=\s*\*\s*\w+\s*[;,]")
_WHOLE_CONTEXT = Explanation(
    "the program copies its whole context, but only single fields of the context may be read",
    "read the fields that are needed: __u32 mark = ctx->mark;",
)
_DYNPTR = Explanation(
    "bpf_dynptr_data() takes only a length that is known when the program is compiled",
    "give a constant length, or copy the bytes: bpf_dynptr_read(copy, sizeof(copy), &dynptr, offset, 0)",
)


def advise_by_source(found: Rejection) -> Explanation | None:
    """Returns advice from the C line and the registers; None if they do not explain the complaint."""
    text = found.text
    if "bitwise operator |= on pointer" in text and "|" not in found.source.replace("||", ""):
        return _OR
    if _NOT_OWNED.search(text) and _calls(found, r"bpf_(?:list_push|rbtree_add)\w*"):
        return _GIVEN_AWAY
    if "bpf_spin_lock-ed region" in text and _calls(found, "bpf_res_spin_lock"):
        return _RESILIENT
    if "invalid bpf_context access" in text and _COPIES.search(found.source):
        return _WHOLE_CONTEXT
    if "invalid mem access" in text and (read := _READ.search(found.source)):
        return _arrow(read[1], read[2])
    if (number := _NUMBER.search(text)) and _was_kept(found, number[1]):
        return _KEPT
    if (packet := re.search(r"invalid access to packet.*\b(R\d+)\(", text)) and _is_meta(found, packet[1]):
        return _META
    if ("unlock of different lock" in text and _names_variable(found)) or _OF_DATA.search(text):
        return _GLOBAL_LOCK
    if found.instruction.startswith("call bpf_spin_lock") and re.search(r"holding a lock|Locking two", text):
        return _SECOND_LOCK
    if found.instruction.startswith("call bpf_dynptr_data#") and "is not a known constant" in text:
        return _DYNPTR
    return None


def _arrow(macro: str, arguments: str) -> Explanation:
    """Explains that a macro for one pointer after another was given an expression with ``->``."""
    commas = ", ".join(re.split(r"\s*(?:->|,)\s*", arguments.strip()))
    return Explanation(
        f"{macro}() reads through the pointers between its commas, but -> in an argument is an access of "
        "the program itself",
        f"write commas in place of ->: {macro}({commas})",
    )


def _was_kept(found: Rejection, register: str) -> bool:
    """Returns whether the register was read from a map's value or a global variable, as the log shows."""
    before = [found.steps[n].instruction for n in sorted(found.steps, reverse=True) if n < (found.index or 0)]
    at, set_by = _last_set(before, register.lower())
    read = re.match(r"r\d+ = \*\(u64 \*\)\((r\d+) ", set_by)
    if read is None:
        return False
    _, address = _last_set(before[at + 1 :], read[1])
    return " = 0x" in address or found.registers.get(read[1].upper(), "").startswith("map_value")


def _last_set(steps: list[str], register: str) -> tuple[int, str]:
    """Returns position and text of the first step that sets a register; an empty text if none does."""
    return next(((n, step) for n, step in enumerate(steps) if step.startswith(f"{register} = ")), (0, ""))


def _is_meta(found: Rejection, register: str) -> bool:
    state = found.registers.get(register, "")
    return state.startswith("pkt_meta") or (not state and "data_meta" in found.source)


def _calls(found: Rejection, name: str) -> bool:
    return any(re.match(rf"call {name}\b", step.instruction) for step in found.steps.values())


def _names_variable(found: Rejection) -> bool:
    """Returns whether the address of a global variable was put into the register right before the call."""
    before = found.steps.get((found.index or 0) - 2)
    return before is not None and before.instruction.startswith("r1 = 0x")
