"""Makes BTF from DWARF: types of local variables, and enums of 64 bits.

clang puts into BTF only the types of maps, globals and function parameters. A program often reserves a ring
buffer's record as a local variable, and only DWARF describes its type. Before version 15 clang also writes
only the lower half of the values of 64-bit enums.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_bpfmaps.btf.dwarf_index import top_entries
from pytest_bpfmaps.btf.types import Kind, Member
from pytest_bpfmaps.btf.validate import check_soundness
from pytest_bpfmaps.btf.writer import BtfWriter
from pytest_bpfmaps.cache.stored_files import write
from pytest_bpfmaps.compat.elftools_names import limit_sections

_STRUCTS = {"DW_TAG_structure_type": Kind.STRUCT, "DW_TAG_union_type": Kind.UNION}
_REFERENCES = {
    "DW_TAG_typedef": Kind.TYPEDEF,
    "DW_TAG_const_type": Kind.CONST,
    "DW_TAG_volatile_type": Kind.VOLATILE,
}
_VARIABLES = ("DW_TAG_variable", "DW_TAG_formal_parameter")
_LONGEST_CHAIN = 64  # of typedefs and qualifiers
# DW_ATE_* to the flags of a BTF integer
_BOOLEAN, _FLOAT, _SIGNED, _SIGNED_CHAR, _UNSIGNED_CHAR = 2, 4, 5, 6, 8
_ENCODINGS = {_BOOLEAN: 4, _SIGNED: 1, _SIGNED_CHAR: 1}


def local_types(path: Path) -> bytes | None:
    """Returns a BTF section with the structs and unions that local variables are, or point to.

    It also has the typedefs that these variables use, and the object's 64-bit enums. Pointers in a struct
    become ``void *``. Returns None when there are no such types, or when the object has no DWARF.
    """
    try:
        return _read(path)
    except Exception:  # a damaged object: pyelftools checks nothing, so any error may come out of it
        return None


def _read(path: Path) -> bytes | None:
    from elftools.elf.elffile import ELFFile

    writer = BtfWriter()
    with path.open("rb") as file:
        elf = ELFFile(file)
        limit_sections(elf)
        if not elf.has_dwarf_info():
            return None
        # BPF relocations have their addends in place, so the sections read the same without applying them.
        # Applying is slow in Python, and a program with vmlinux.h has tens of thousands of relocations.
        dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
        for unit in dwarf.iter_CUs():
            converter = _Converter(writer, unit)
            for die in _wanted_types(unit):
                converter.type_id(die)
    if not len(writer):
        return None
    made = writer.to_bytes()
    check_soundness(made)
    return made


def keep_local_types(path: Path, beside: Path) -> None:
    """Writes the types of the object at `path` where `read_local_types` finds them for the object `beside`.

    Reading DWARF takes tens of milliseconds, and seconds in an emulated machine. The compiler does it once.
    """
    raw = local_types(path)
    if raw is not None:
        write(kept_types(beside), raw)


def read_local_types(path: Path) -> bytes | None:
    """Returns the types that were kept beside an object. Without them it reads the object's DWARF."""
    try:
        return kept_types(path).read_bytes()
    except OSError:
        return local_types(path)


def kept_types(path: Path) -> Path:
    """Returns the path of the file with the types of the object at `path`."""
    return path.with_suffix(".types")


def _wanted_types(unit: Any) -> Iterator[Any]:
    """Yields the struct types of all variables inside functions, and the 64-bit enums, each once."""
    seen: set[int] = set()
    for die in top_entries(unit, ("DW_TAG_enumeration_type", "DW_TAG_subprogram")):
        if die.tag == "DW_TAG_enumeration_type" and _number(die, "DW_AT_byte_size") == 8:
            yield die
        if die.tag == "DW_TAG_subprogram":
            for variable in _variables(die):
                for target in _structs_behind(variable):
                    if target.offset not in seen:
                        seen.add(target.offset)
                        yield target


def _variables(die: Any) -> Iterator[Any]:
    for child in die.iter_children():
        if child.tag in _VARIABLES:
            yield child
        elif child.has_children:
            yield from _variables(child)


def _structs_behind(variable: Any) -> list[Any]:
    """Returns the named struct or union that a variable is, or points to, and the typedefs for it."""
    die = variable
    pointers = 0
    names = []
    for _ in range(_LONGEST_CHAIN):
        if die is None or die.tag in _STRUCTS:
            break
        if die.tag == "DW_TAG_typedef":
            names.append(die)
        elif die.tag == "DW_TAG_pointer_type":
            pointers += 1
            names = []  # a typedef of a pointer is no struct
        elif die.tag not in (*_VARIABLES, *_REFERENCES):
            return []
        if pointers > 1:
            return []
        die = _target(die)
    if die is None or die.tag not in _STRUCTS or "DW_AT_declaration" in die.attributes:
        return []
    return [*names, die] if "DW_AT_name" in die.attributes else names


def _target(die: Any) -> Any:
    if "DW_AT_type" in die.attributes:
        return die.get_DIE_from_attribute("DW_AT_type")
    if "DW_AT_abstract_origin" in die.attributes:  # a variable of an inlined function
        return _target(die.get_DIE_from_attribute("DW_AT_abstract_origin"))
    return None


def _name(die: Any) -> str:
    attribute = die.attributes.get("DW_AT_name")
    return attribute.value.decode(errors="replace") if attribute else ""


def _number(die: Any, attribute: str, default: int = 0) -> int:
    found = die.attributes.get(attribute)
    return int(found.value) if found and isinstance(found.value, int) else default


class _Converter:
    """Writes the DWARF types of one compilation unit as BTF. Each is written once."""

    def __init__(self, writer: BtfWriter, unit: Any) -> None:
        self._writer = writer
        self._unit = unit
        self._ids: dict[int, int] = {}

    def type_id(self, die: Any) -> int:
        """Returns the BTF id for a DWARF type. None is void, whose id is 0."""
        if die is None:
            return 0
        made = self._ids.get(die.offset)
        if made is None:
            made = self._ids[die.offset] = self._convert(die)
        return made

    def _convert(self, die: Any) -> int:
        writer, tag, size = self._writer, die.tag, _number(die, "DW_AT_byte_size")
        if tag == "DW_TAG_base_type":
            encoding = _number(die, "DW_AT_encoding")
            if encoding == _FLOAT:
                return writer.add_float(_name(die), size)
            return writer.add_int(_name(die), size, _ENCODINGS.get(encoding, 0))
        if tag in _REFERENCES:
            kind = _REFERENCES[tag]
            return writer.add_reference(kind, _name(die), self.type_id(_target(die)))
        if tag == "DW_TAG_array_type":
            return self._array(die)
        if tag in _STRUCTS:
            members = [self._member(m) for m in die.iter_children() if m.tag == "DW_TAG_member"]
            return writer.add_struct(_STRUCTS[tag], _name(die), size, members)
        if tag == "DW_TAG_enumeration_type":
            values = [
                (_name(e), _number(e, "DW_AT_const_value"))
                for e in die.iter_children()
                if e.tag == "DW_TAG_enumerator"
            ]
            return writer.add_enum(_name(die), size, values)
        return writer.add_reference(Kind.PTR, "", 0)

    def _array(self, die: Any) -> int:
        made = self.type_id(_target(die))
        ranges = [c for c in die.iter_children() if c.tag == "DW_TAG_subrange_type"]
        for each in reversed(ranges):  # the innermost dimension is the last
            count = _number(each, "DW_AT_count", _number(each, "DW_AT_upper_bound", -1) + 1)
            made = self._writer.add_array(made, count)
        return made

    def _member(self, die: Any) -> Member:
        type_id = self.type_id(_target(die))
        bits = _number(die, "DW_AT_bit_size")
        offset = _number(die, "DW_AT_data_bit_offset", _number(die, "DW_AT_data_member_location") * 8)
        return Member(_name(die), type_id, offset, bits)
