"""Reads the members of the running kernel's structs, unions and enums from its BTF.

Reading all types of the kernel takes Python seconds. libbpf finds the few that are needed at once.
"""

from __future__ import annotations

from typing import Any

from pytest_bpfmaps.kernel.vmlinux_btf import ENUM, ENUM64, STRUCT, UNION, vmlinux_btf
from pytest_bpfmaps.libbpf import ffi, lib, to_str

_KINDS = {"struct": STRUCT, "union": UNION, "enum": ENUM}
_MODIFIERS = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag


def names_in(kind: str, name: str) -> list[str] | None:
    """Returns the fields of a struct or union, including those of unnamed members, or an enum's values.

    Returns None if this kernel has no such type.
    """
    found = _find(kind, name)
    if found is None:
        return None
    if kind == "enum":
        width = 3 if _kind(found) == ENUM64 else 2
        return [_text(found[3 + i * width]) for i in range(found[1] & 0xFFFF)]
    return [field for field, _ in _fields(found)]


def names_at(kind: str, name: str, path: list[str]) -> tuple[int, list[str]]:
    """Returns how many of the nested fields on `path` exist, and the names at the next step."""
    here = _find(kind, name)
    for depth, step in enumerate(path):
        fields = dict(_fields(here)) if here is not None else {}
        if step not in fields:
            return depth, list(fields)
        here = _resolve(fields[step])
    return len(path), []


def offset_of(name: str, member: str) -> int | None:
    """Returns where a member of a struct is, in bytes; None if there is no such struct or direct member."""
    found = _find("struct", name)
    for i in range(found[1] & 0xFFFF if found is not None else 0):
        if _text(found[3 + 3 * i]) == member:
            return int(found[5 + 3 * i] & 0xFFFFFF) // 8  # the upper byte is the size of a bit field
    return None


def _find(kind: str, name: str) -> Any:
    for number in (_KINDS[kind], ENUM64) if kind == "enum" else (_KINDS[kind],):
        type_id = lib.btf__find_by_name_kind(vmlinux_btf(), name.encode(), number)
        if type_id > 0:
            return _words(type_id)
    return None


def _fields(words: Any) -> list[tuple[str, int]]:
    found = []
    for i in range(words[1] & 0xFFFF):
        name, type_id = _text(words[3 + 3 * i]), words[4 + 3 * i]
        if name:
            found.append((name, type_id))
        elif (inner := _resolve(type_id)) is not None:
            found += _fields(inner)
    return found


def _resolve(type_id: int) -> Any:
    """Returns the struct or union below typedefs and qualifiers; None for any other type."""
    words = _words(type_id)
    while _kind(words) in _MODIFIERS:
        words = _words(words[2])
    return words if _kind(words) in (STRUCT, UNION) else None


def _words(type_id: int) -> Any:
    return ffi.cast("uint32_t *", lib.btf__type_by_id(vmlinux_btf(), type_id))


def _kind(words: Any) -> int:
    return int(words[1]) >> 24 & 0x1F


def _text(offset: int) -> str:
    return to_str(lib.btf__name_by_offset(vmlinux_btf(), offset))
