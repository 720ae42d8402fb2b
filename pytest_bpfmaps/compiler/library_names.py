"""Says what BPF programs have instead of functions of the C library, and of the compiler's own."""

from __future__ import annotations

import re

from pytest_bpfmaps.errors import Explanation

_OF_LIBC = {
    **{name: f"bpf_{name}() of <bpf/bpf_endian.h>" for name in ("htons", "ntohs", "htonl", "ntohl")},
    **{f"{sign}int{bits}_t": f"__{sign or 's'}{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("size_t", "ssize_t", "uintptr_t"), "__u64, or include vmlinux.h"),
    **dict.fromkeys(("bool", "true", "false"), "_Bool, 1 and 0, or include <stdbool.h> or vmlinux.h"),
    **dict.fromkeys(("printf", "puts"), 'bpf_printk("…") of <bpf/bpf_helpers.h>'),
    **dict.fromkeys(
        ("sprintf", "snprintf"), "BPF_SNPRINTF(out, sizeof(out), …) of <bpf/bpf_helpers.h>, of Linux 5.13"
    ),
    "errno": "the result of the helper into a variable: it is negative when the helper fails",
    "NULL": "0 or (void *)0",
    **{name: f"__builtin_{name}()" for name in ("memcpy", "memset", "memmove", "memcmp")},
    **dict.fromkeys(("strcmp", "strncmp"), "bpf_strncmp(text, size, constant), of Linux 5.17, or a loop"),
    **dict.fromkeys(("strcpy", "strncpy"), "__builtin_memcpy() with a constant size, or a loop"),
    **dict.fromkeys(("strlen", "strnlen"), "a loop up to the size of the array"),
    **dict.fromkeys(("malloc", "calloc", "free"), "a map; memory of a program is in maps or on its stack"),
    **dict.fromkeys(("time", "gettimeofday", "clock_gettime"), "bpf_ktime_get_ns()"),
    "getpid": "bpf_get_current_pid_tgid() >> 32",
    **dict.fromkeys(("rand", "random"), "bpf_get_prandom_u32()"),
    "assert": "if (!…) return …;",
}
_COPY = "clang inlines at most 128 loads and stores; copy more with bpf_probe_read_kernel(to, SIZE, from)"
_BUILTINS = {
    "memset": "clear the memory in a loop of volatile stores, which clang does not make a memset() again: "
    "for (int i = 0; i < SIZE / 8; i++) ((volatile __u64 *)memory)[i] = 0;",
    "memcpy": _COPY,
    "memmove": _COPY,
    "memcmp": "clang inlines small comparisons only; compare more in a loop",
}


def explain_libc(name: str) -> Explanation | None:
    """Explains a name of the C library, and what BPF programs have instead; None for another name."""
    instead = _OF_LIBC.get(name)
    if instead is None:
        return None
    return Explanation(f"{name} belongs to the C library, which BPF programs don't have", f"write {instead}")


def explain_builtin(name: str) -> Explanation:
    """Explains a function that clang calls for what BPF lacks, or for what is too large to inline."""
    if re.match(r"__\w*[sdt]f\d?", name):
        return Explanation(
            f"there is no floating point: BPF has no function {name}()",
            "count in integers, for example in thousandths, and divide in the test",
        )
    return Explanation(
        f"BPF has no function {name}()",
        _BUILTINS.get(name, "calculate with integers of at most 64 bits"),
    )
