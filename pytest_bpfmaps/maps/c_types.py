"""Turns C types that are given as text into BTF, with the compiler."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pytest_bpfmaps.btf.editor import BtfEditor
from pytest_bpfmaps.btf.types import Kind
from pytest_bpfmaps.compiler import Compiler, CompileRequest
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.errors import CompileError, MapTypeError

_HEAD = """\
#include <stdbool.h>
#include <linux/types.h>
typedef __u8 u8;
typedef __s8 s8;
typedef __u16 u16;
typedef __s16 s16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;
"""
_HOLDER = "bpfmaps_types"
_DIAGNOSTIC = re.compile(r"^(\w+):\d+:\d+: error: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Types:
    """A BTF section, and the ids of the requested types in it, by name."""

    btf: bytes
    ids: dict[str, int]


def compile_types(compiler: Compiler, texts: dict[str, str], on: str) -> Types:
    """Returns the BTF of C types that are given as text, by name: ``{"key": "u32"}``; `on` is for messages.

    The names of <linux/types.h>, the same names without underscores, and ``bool`` are known. Raises
    `MapTypeError` with clang's message for a text that is not a complete type, and `CompileError` if there is
    no clang.
    """
    request = CompileRequest(code=_source(texts), name="map_types.bpf.c")
    try:
        path = compiler.compile(request)
    except CompileError as e:
        found = _DIAGNOSTIC.search(e.details or "")
        if found is None or found[1] not in texts:
            raise
        raise MapTypeError(
            "cannot create",
            on=on,
            why=f"its {found[1]}, {texts[found[1]]!r}, is not a C type: {found[2]}",
            details=e.details,
            fix="write a C type, 'u32', 'struct { u32 a; u64 b; }', 'char[16]', or give a size in bytes",
        ) from None
    return _types_in(path)


def _source(texts: dict[str, str]) -> str:
    members = "".join(f'__typeof__(\n#line 1 "{name}"\n{text}\n) {name};\n' for name, text in texts.items())
    return f"{_HEAD}struct {{\n{members}}} {_HOLDER};\n"


@lru_cache(maxsize=256)
def _types_in(path: Path) -> Types:
    """Returns the types of the holder's members, without the holder and its variable."""
    elf = Elf(path.read_bytes())
    section = elf.section(".BTF")
    assert section is not None
    editor = BtfEditor(elf.content(section))
    btf = editor.btf
    assert btf is not None
    variable = btf.find(_HOLDER, Kind.VAR)
    assert variable is not None
    holder = btf.type(variable.size_or_type)
    for each in btf.of_kind(Kind.VAR, Kind.DATASEC):
        editor.drop(each.id)
    editor.drop(holder.id)
    return Types(editor.to_bytes(), {m.name: m.type_id for m in holder.members()})
