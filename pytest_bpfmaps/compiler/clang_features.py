"""Asks the preprocessor of the clang in use whether that clang has a feature."""

from __future__ import annotations

import re

from pytest_bpfmaps.compiler.request import Compiler, CompileRequest
from pytest_bpfmaps.errors import CompileError

_VERSION = re.compile(r"\(clang ([^)]+)\)")
_REFUSED = "no such ability"


def lacking_ability(compiler: Compiler, expression: str) -> str | None:
    """Returns the clang that lacks the feature, as ``"clang 14.0.6"``; None if `expression` holds.

    `expression` is what may follow ``#if`` (``"__clang_major__ >= 15"``), or the name of a macro that clang
    defines for BPF (``"__BPF_FEATURE_ADDR_SPACE_CAST"``). Raises `CompileError` for one that is malformed.
    """
    condition = f"defined({expression})" if expression.isidentifier() else expression
    code = f"#if !({condition})\n#error {_REFUSED}\n#endif\n"
    try:
        compiler.compile(CompileRequest(code=code, name="ability.bpf.c"))
    except CompileError as e:
        if f"error: {_REFUSED}" not in (e.details or ""):
            raise
        found = _VERSION.search(str(e))
        return f"clang {found[1]}" if found else "clang"
    return None
