"""What clang does not find or can't translate, and what the source is to say instead."""

from __future__ import annotations

import re

Answer = tuple[str, str]
"""Why, and what to do."""

_NARROW = re.compile(r"[Uu]nsupported atomic operations?, please use (32/64|64) bit version")
_PLAIN = re.compile(r"Cannot select: .*= Atomic(Load|Store)<")
_RESULT = re.compile(r"Invalid usage of the XADD return value")
_UNDECLARED = re.compile(
    r"error: (?:call to undeclared function|use of undeclared identifier|unknown type name|"
    r"implicit declaration of function) '(\w+)'"
)
_MEMBER = re.compile(r"error: no member named '(\w+)' in '((?:struct|union) (\w+))'")
_INCOMPLETE = re.compile(
    r"error: (?:.*incomplete (?:definition of )?type|invalid application .*) '((?:struct|union|enum) \w+)'"
)
# by libbpf's tags: the first release whose bpf_helpers.h, bpf_tracing.h, bpf_core_read.h or usdt.bpf.h has it
_CAME_WITH = {
    **dict.fromkeys(("bpf_for", "bpf_for_each", "bpf_repeat", "bpf_ksym_exists", "BPF_UPROBE"), "1.2"),
    **dict.fromkeys(("BPF_URETPROBE", "__kptr_untrusted"), "1.2"),
    **dict.fromkeys(("BPF_PROG2",), "1.1"),
    **dict.fromkeys(("__percpu_kptr",), "1.3"),
    **dict.fromkeys(("bpf_core_cast", "bpf_rdonly_cast", "__arg_ctx", "__arg_nonnull"), "1.4"),
    **dict.fromkeys(("__arg_trusted", "__arg_arena", "__arg_nullable"), "1.4"),
    **dict.fromkeys(("bpf_stream_printk", "__arg_untrusted", "bpf_usdt_arg_size"), "1.6"),
    **dict.fromkeys(("BPF_KSYSCALL", "bpf_core_type_matches"), "1.0"),
}
_OF_THE_KERNEL = ("can_loop", "cond_break", "__contains", "bpf_obj_new", "bpf_obj_drop", "bpf_assert")


def explain(output: str, *, vmlinux: bool) -> Answer | None:
    """For an atomic operation that BPF lacks, or a name that no header has; None for another error.

    With `vmlinux` the source includes the ``vmlinux.h`` that is made for it.
    """
    return _atomic(output) or _newer_header(output) or (_other_kernel(output) if vmlinux else None)


def _atomic(output: str) -> Answer | None:
    if found := _NARROW.search(output):
        if found[1] == "64":
            return (
                "this atomic operation on 32 bits came with the instruction set v3",
                "compile with cflags=['-mcpu=v3'] or without -mcpu, or make the variable 64 bits wide",
            )
        return (
            "BPF has atomic operations on 32 and 64 bits only",
            "make the variable __u32 or __u64",
        )
    if _RESULT.search(output):
        return (
            "the result of an atomic addition is used, which came with the instruction set v3",
            "compile with cflags=['-mcpu=v3'] or without -mcpu, or don't use the result",
        )
    if found := _PLAIN.search(output):
        way = (
            "value = *(volatile __u64 *)&variable"
            if found[1] == "Load"
            else "*(volatile __u64 *)&variable = value"
        )
        return (
            f"this clang has no atomic {found[1].lower()} for BPF",
            f"write {way}; of an aligned variable that is done in one piece",
        )
    return None


def _newer_header(output: str) -> Answer | None:
    for found in _UNDECLARED.finditer(output):
        if since := _CAME_WITH.get(found[1]):
            return (
                f"{found[1]} came with libbpf {since}, and the installed headers are older",
                f"install the headers of libbpf {since} or later and name their folder with bpf_paths, or do "
                "without",
            )
        if found[1] in _OF_THE_KERNEL:
            return (
                f"{found[1]} is in no header of libbpf's, but in bpf_experimental.h of the kernel's tests",
                "put that header beside the source (tools/testing/selftests/bpf), or do without",
            )
    return None


def _other_kernel(output: str) -> Answer | None:
    if member := _MEMBER.search(output):
        name, whole, plain = member.groups()
        return (
            f"{whole} of the kernel whose vmlinux.h is used has no member {name}",
            f"take the name that it has there; for a kernel with {name}, declare struct {plain}___old with "
            "it, marked __attribute__((preserve_access_index)), and ask bpf_core_field_exists()",
        )
    if incomplete := _INCOMPLETE.search(output):
        return (
            f"{incomplete[1]} is not in the vmlinux.h that is used: that kernel lacks it, or a module has it",
            "declare it in the source, with the members that are used, marked "
            "__attribute__((preserve_access_index))",
        )
    return None


def shortened(output: str) -> str:
    """The diagnostics without what LLVM prints for those who mend it."""
    text = output.partition("\nIn function: ")[0].partition("\nPLEASE submit a bug report")[0]
    return re.sub(r"(?m)^ +0x[0-9a-f]+: .*\n?", "", text)
