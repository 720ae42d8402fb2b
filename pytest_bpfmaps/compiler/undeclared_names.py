"""Explains names that clang does not find, and code that it can't compile for BPF."""

from __future__ import annotations

import re
import socket
from difflib import get_close_matches
from pathlib import Path

from pytest_bpfmaps.compiler.foreign_names import explain_bcc, explain_macro
from pytest_bpfmaps.compiler.library_names import explain_libc
from pytest_bpfmaps.compiler.wrong_types import explain_types
from pytest_bpfmaps.errors import Explanation
from pytest_bpfmaps.kernel import known_names

_NARROW = re.compile(r"[Uu]nsupported atomic operations?, please use (32/64|64) bit version")
_PLAIN = re.compile(r"Cannot select: .*= Atomic(Load|Store)<")
_RESULT = re.compile(r"Invalid usage of the XADD return value")
_UNDECLARED = re.compile(
    r"error: (?:call to undeclared (?:library )?function|use of undeclared identifier|unknown type name|"
    r"implicit declaration of function) '(\w+)'"
)
# If nothing defines a macro such as BPF_KPROBE(name, int argument), clang takes it for a function's name.
_UNDEFINED_MACRO = re.compile(
    r"error: (?:expected identifier|redefinition of|parameter '\w+' was not declared)[^\n]*\n"
    r"[^\n]*?\b(BPF_\w+)\("
)
_MEMBER = re.compile(r"error: no member named '(\w+)' in '((?:struct|union) (\w+))'")
_INCOMPLETE = re.compile(
    r"error: (?:.*incomplete (?:definition of )?type|invalid application .*) '((?:struct|union|enum) \w+)'"
)
# the first release of libbpf whose bpf_helpers.h, bpf_tracing.h, bpf_core_read.h or usdt.bpf.h has the name
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
# the header of libbpf that has the name
_IN_HEADER = {
    **dict.fromkeys(
        ("SEC", "__uint", "__type", "__array", "__always_inline", "bpf_printk", "__ksym"), "bpf_helpers"
    ),
    **dict.fromkeys(
        ("BPF_PROG", "BPF_KPROBE", "BPF_KRETPROBE", "PT_REGS_PARM1", "PT_REGS_RC"), "bpf_tracing"
    ),
    "BPF_USDT": "usdt.bpf",
    **dict.fromkeys(("BPF_CORE_READ", "BPF_CORE_READ_INTO", "bpf_core_field_exists"), "bpf_core_read"),
    **dict.fromkeys(("bpf_htons", "bpf_ntohs", "bpf_htonl", "bpf_ntohl"), "bpf_endian"),
}
_OF_THE_KERNEL = ("can_loop", "cond_break", "__contains", "bpf_obj_new", "bpf_obj_drop", "bpf_assert")


def explain(output: str, *, vmlinux: bool) -> Explanation | None:
    """Explains an atomic operation that BPF lacks, or a name that no header has; None for another error.

    `vmlinux` says whether the source includes the ``vmlinux.h`` that is made for it.
    """
    found = _atomic(output) or _limits(output) or _order(output) or _newer_header(output)
    found = found or explain_bcc(output)
    found = found or explain_types(output, vmlinux=vmlinux) or _elsewhere(output, vmlinux)
    return found or (_other_kernel(output) if vmlinux else None)


_MACRO_ARGUMENTS = re.compile(r"'___bpf_(kretprobe|kprobe|syscall|ctx|uprobe)_?(?:args|cast)?(\d+)'")
_MOST_ARGUMENTS = {
    "kretprobe": "BPF_KRETPROBE gives one argument, the value that the function returns",
    "kprobe": "BPF_KPROBE gives the arguments that are in registers, at most 8",
    "syscall": "BPF_KSYSCALL gives the arguments of a system call, at most 7",
    "ctx": "BPF_PROG gives at most 12 arguments",
}
_DIVISION = re.compile(r"[Uu]nsupported signed division")
_STRUCT_RETURNED = re.compile(r"aggregate returns are not supported")
_SECTION_NAME = re.compile(r"error: symbol '(\w+)' is already defined")
_STACK_ARGUMENTS = re.compile(r"stack arguments are not supported|too many arguments\s*$", re.MULTILINE)


_BY_VALUE = re.compile(r"pass by value not supported|pass by reference not supported")
_STACK_OF_ANY_SIZE = re.compile(r"error: [Uu]nsupported dynamic stack allocation")
_BIT_FIELD = re.compile(
    r"error: (?:address of bit-field requested|invalid application of 'typeof' to bit-field)"
)
_FORMAT = re.compile(r"error: array initializer must be an initializer list or string literal")
_COMPUTED_GOTO = re.compile(r"Cannot select: .*= brind ")


def _limits(output: str) -> Explanation | None:
    """Explains a limit of BPF that C does not have; None for another error."""
    if _STACK_OF_ANY_SIZE.search(output):
        return Explanation(
            "the size of a variable on the stack has to be a constant in BPF",
            "declare it with its largest size, char buffer[64] = {};, and bound the number of bytes in use",
        )
    if _BIT_FIELD.search(output) and "BPF_CORE_READ" in output:
        return Explanation(
            "BPF_CORE_READ() takes the address of the field, and a bit-field has none",
            "use BPF_CORE_READ_BITFIELD_PROBED(pointer, field), or BPF_CORE_READ_BITFIELD() where the "
            "program may read pointer->field itself",
        )
    if _FORMAT.search(output) and "bpf_printk" in output:
        return Explanation(
            "the format of bpf_printk() has to be a literal text", 'write bpf_printk("%s", text)'
        )
    if _COMPUTED_GOTO.search(output):
        return Explanation(
            "the program jumps to an address in a variable, goto *pointer, which this clang has not for BPF",
            "write a switch",
        )
    if _BY_VALUE.search(output):
        return Explanation(
            "a function of BPF can't take a struct of more than 16 bytes",
            "give it a pointer to the struct, or mark it static __always_inline",
        )
    if _DIVISION.search(output):
        return Explanation(
            "signed division and remainder came with the instruction set v4 (Linux 6.6)",
            "divide unsigned numbers, and put the sign back; or compile with cflags=['-mcpu=v4'] (clang 18)",
        )
    if _STACK_ARGUMENTS.search(output):
        return Explanation(
            "a function of BPF has at most five parameters",
            "give it a pointer to a struct of them, or mark it static __always_inline",
        )
    if _STRUCT_RETURNED.search(output):
        return Explanation(
            "a function of BPF can't return a struct",
            "give it a pointer to the struct, which it fills; or mark it static __always_inline",
        )
    if twice := _SECTION_NAME.search(output):
        return Explanation(
            f"a section and a function have the same name, {twice[1]}",
            'give the function the section of its type of program, SEC("xdp"), or another name',
        )
    if (macro := _MACRO_ARGUMENTS.search(output)) and macro[1] in _MOST_ARGUMENTS:
        return Explanation(
            _MOST_ARGUMENTS[macro[1]],
            "declare only that one; save other arguments in a map when the function begins"
            if macro[1] == "kretprobe"
            else "declare fewer, and read the others from the context",
        )
    return None


def _order(output: str) -> Explanation | None:
    """Explains that a header of libbpf is included before the types that it uses, or not included."""
    if re.search(r"/bpf/bpf_helper_defs\.h:\d+:\d+: error: unknown type name '__u(?:32|64)'", output):
        return Explanation(
            "<bpf/bpf_helpers.h> uses types that no header before it declares",
            'put #include "vmlinux.h" or #include <linux/bpf.h> before it',
        )
    if re.search(r"error: expected parameter declarator\n[^\n]*\bSEC\(", output):
        return Explanation("SEC() is a macro of libbpf, and not declared", "#include <bpf/bpf_helpers.h>")
    return None


def _undefined_macros(output: str) -> list[str]:
    """Returns the undefined macros that the source uses to define a program: BPF_KPROBE(name, …)."""
    names = (found[1] for found in _UNDEFINED_MACRO.finditer(output))
    return [name for name in names if f"expanded from macro '{name}'" not in output]


def _elsewhere(output: str, vmlinux: bool) -> Explanation | None:
    """Explains a name that another header has, or the C library; None for another error."""
    for name in _undefined_macros(output):
        if header := _IN_HEADER.get(name):
            return Explanation(f"{name} is in a header of libbpf", f"#include <bpf/{header}.h>")
    for found in _UNDECLARED.finditer(output):
        name = found[1]
        if header := _IN_HEADER.get(name):
            return Explanation(f"{name} is in a header of libbpf", f"#include <bpf/{header}.h>")
        if of_libc := explain_libc(name):
            return of_libc
        if of_kernel := explain_macro(name):
            return of_kernel
        if value := macro_value(name):
            return Explanation(
                f"{name} is a macro, and {'vmlinux.h has no macros' if vmlinux else 'no header here has it'}",
                f"write it in the source: #define {name} {value}",
            )
        if near := _near_helper(name):
            return Explanation(f"there is no {name}", f"did you mean {near!r}?")
        if found[0].endswith(f"function '{name}'"):
            return Explanation(
                f"{name}() is declared nowhere, and BPF programs have no C library",
                f"write it yourself, or declare it if it is a kernel function: extern … {name}(…) __ksym;",
            )
        if vmlinux:
            return Explanation(
                f"{name} is neither in the source nor in the vmlinux.h that is used",
                "for a type or an enumerator of another kernel, declare it in the source, and ask "
                "bpf_core_type_exists() or bpf_core_enum_value_exists(); for a macro, write #define",
            )
    return None


def macro_value(name: str) -> str | None:
    """Returns the number of a macro in the kernel's headers for user space; None if there is none."""
    if name in _OF_SOCKETS:
        return str(int(_OF_SOCKETS[name]))
    wanted = re.compile(rf"^#define\s+{name}\s+(\(?-?(?:0x)?[0-9a-fA-F]+[UL]*\)?)\s*(?:/\*|$)", re.MULTILINE)
    for folder in _HEADERS:
        for path in sorted(Path(folder).glob("*.h")):
            text = path.read_text(errors="replace")
            if name in text and (found := wanted.search(text)):
                return found[1]
    return None


def _header_that_defines(name: str) -> str | None:
    """Returns the installed header of libbpf that has the macro; None if none has it."""
    wanted = re.compile(rf"^#define\s+{name}\b", re.MULTILINE)
    for path in sorted(Path("/usr/include/bpf").glob("*.h")):
        if wanted.search(path.read_text(errors="replace")):
            return path.name
    return None


# these macros are in headers of the C library only
_OF_SOCKETS = {
    **{family.name: family for family in socket.AddressFamily},
    **{kind.name: kind for kind in socket.SocketKind},
}
_HEADERS = ("/usr/include/linux", "/usr/include/asm-generic", "/usr/include/linux/netfilter")


def _near_helper(name: str) -> str | None:
    if not name.startswith("bpf_"):
        return None
    near = get_close_matches(name, ["bpf_printk", *known_names.helpers()], n=1, cutoff=0.8)
    return near[0] if near else None


def _atomic(output: str) -> Explanation | None:
    if found := _NARROW.search(output):
        if found[1] == "64":
            return Explanation(
                "this atomic operation on 32 bits came with the instruction set v3",
                "compile with cflags=['-mcpu=v3'] or without -mcpu, or make the variable 64 bits wide",
            )
        return Explanation(
            "BPF has atomic operations on 32 and 64 bits only",
            "make the variable __u32 or __u64",
        )
    if _RESULT.search(output):
        return Explanation(
            "the result of an atomic addition is used, which came with the instruction set v3",
            "compile with cflags=['-mcpu=v3'] or without -mcpu, or don't use the result",
        )
    if found := _PLAIN.search(output):
        way = (
            "value = *(volatile __u64 *)&variable"
            if found[1] == "Load"
            else "*(volatile __u64 *)&variable = value"
        )
        return Explanation(
            f"this clang has no atomic {found[1].lower()} for BPF",
            f"write {way}; for an aligned variable this is one access",
        )
    return None


def _newer_header(output: str) -> Explanation | None:
    for name in (*_undefined_macros(output), *(found[1] for found in _UNDECLARED.finditer(output))):
        if (since := _CAME_WITH.get(name)) and (header := _header_that_defines(name)):
            return Explanation(f"{name} is in a header of libbpf", f"#include <bpf/{header}>")
        if since:
            return Explanation(
                f"{name} came with libbpf {since}, and the installed headers are older",
                f"install the headers of libbpf {since} or later and name their folder with bpf_paths, or "
                "write the program without it",
            )
        if name in _OF_THE_KERNEL:
            return Explanation(
                f"{name} is not in a header of libbpf, but in bpf_experimental.h of the kernel's tests",
                "put that header beside the source (tools/testing/selftests/bpf), or write the program "
                "without it",
            )
    return None


def _other_kernel(output: str) -> Explanation | None:
    if member := _MEMBER.search(output):
        name, whole, plain = member.groups()
        return Explanation(
            f"{whole} of the kernel whose vmlinux.h is used has no member {name}",
            f"use the member's name there; for a kernel with {name}, declare struct {plain}___old with "
            "it, marked __attribute__((preserve_access_index)), and ask bpf_core_field_exists()",
        )
    if incomplete := _INCOMPLETE.search(output):
        return Explanation(
            f"{incomplete[1]} is not in the vmlinux.h that is used: that kernel lacks it, or a module has it",
            "declare it in the source, with the members that are used, marked "
            "__attribute__((preserve_access_index))",
        )
    return None


def shortened(output: str) -> str:
    """Returns the diagnostics without what LLVM prints for its own developers."""
    text = output.partition("\nIn function: ")[0].partition("\nPLEASE submit a bug report")[0]
    place = _PLACE.search(text) if text.startswith("fatal error: error in backend: Cannot select") else None
    text = re.sub(r"(?m)^ +0x[0-9a-f]+: .*\n?", "", text)
    text = re.sub(r"\berror: 0x[0-9a-f]+: i64 = GlobalAddress<.*?> 0, \S+ ", "error: ", text)
    return f"{place[1]}: {text}" if place else text


_PLACE = re.compile(r"([^/\s]+\.[ch]:\d+:\d+)$", re.MULTILINE)  # of a node that LLVM prints
