"""Reads from DWARF which two values a static variable has, of which clang keeps only a byte.

If a program gives a static number only one value besides its first one, clang keeps a byte that says which of
the two it has. BTF does not show that, and DWARF does: the variable's value is "the byte * A + B". Source:
TryToShrinkGlobalToBoolean in LLVM's GlobalOpt.cpp; DWARF 5, section 2.5.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf.dwarf_index import top_entries
from pytest_bpfmaps.compat.elftools_names import limit_sections

_CONSTANT = rb"[\x30-\x4f]|\x10[\x80-\xff]*[\x00-\x7f]"  # DW_OP_lit0 to DW_OP_lit31, DW_OP_constu
_VALUE = re.compile(
    # DW_OP_deref_size 1, A, DW_OP_mul, B, DW_OP_plus, DW_OP_stack_value
    rb"\x94\x01(" + _CONSTANT + rb")\x1e(" + _CONSTANT + rb")\x22\x9f\Z",
    re.DOTALL,
)
_LITERAL = 0x30


def two_values(path: Path, name: str) -> tuple[int, int] | None:
    """Returns the values that the variable has where its byte is 0 and where it is 1.

    They are unsigned, and may be wider than the variable. Returns None if the object at `path` does not tell.
    """
    try:
        found = set(_found(path, name))
    except Exception:  # a damaged object: pyelftools checks nothing, so any error may come out of it
        return None
    return found.pop() if len(found) == 1 else None


def _found(path: Path, name: str) -> Iterator[tuple[int, int] | None]:
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        elf = ELFFile(file)
        limit_sections(elf)
        if not elf.has_dwarf_info():
            return
        for unit in elf.get_dwarf_info(relocate_dwarf_sections=False).iter_CUs():
            for entry in top_entries(unit, ("DW_TAG_variable", "DW_TAG_subprogram")):
                children = entry.iter_children() if entry.tag == "DW_TAG_subprogram" else (entry,)
                for each in children:
                    if each.tag == "DW_TAG_variable" and _text(each, "DW_AT_name") == name:
                        yield _of_location(each)


def _of_location(entry: Any) -> tuple[int, int] | None:
    location = entry.attributes.get("DW_AT_location")
    found = _VALUE.search(bytes(location.value)) if location is not None else None
    if found is None:
        return None
    factor, first = (_constant(part) for part in found.groups())
    return first, factor + first


def _constant(raw: bytes) -> int:
    if raw[0] >= _LITERAL:
        return raw[0] - _LITERAL
    return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(raw[1:]))


def _text(entry: Any, name: str) -> str:
    value = entry.attributes.get(name)
    return value.value.decode(errors="replace") if value is not None else ""
