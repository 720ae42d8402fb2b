"""Why a program can't be measured by its machine code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_JIT = "the kernel has not compiled it to machine code (sysctl -w net.core.bpf_jit_enable=1)"
HIDDEN = "the kernel hides its addresses (sysctl -w kernel.kptr_restrict=1)"
NO_LINES = (
    "it has no line information: compile it with -g, and keep its BTF. "
    "If it has BTF, the kernel refuses that: bpftool -d prog load says why"
)


def reason(facts: Mapping[str, Any]) -> str:
    """The reason, by what `kernel.program_code` found; empty when it can be measured."""
    if not facts["jited_prog_len"]:
        return NO_JIT
    if not facts["jited_func_lens"] or not facts["jited_ksyms"]:
        return HIDDEN
    if not facts["line_info"] or not facts["jited_line_info"] or not facts["btf_id"]:
        return NO_LINES
    return ""
