"""Checks BTF: every name and every type that it refers to must exist.

libbpf before 1.3 does not check such references, and a damaged object then ends the process.
https://docs.kernel.org/bpf/btf.html
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_bpfmaps.btf.types import MODIFIERS, Btf, BtfType, Kind
from pytest_bpfmaps.errors import LoadError

_REFERENCE = {  # kinds whose last word is a type id
    Kind.PTR,
    Kind.TYPEDEF,
    Kind.VOLATILE,
    Kind.CONST,
    Kind.RESTRICT,
    Kind.FUNC,
    Kind.FUNC_PROTO,
    Kind.VAR,
    Kind.DECL_TAG,
    Kind.TYPE_TAG,
}
_MEMBERS = {Kind.STRUCT, Kind.UNION}
_SIZES = {
    Kind.INT: {1, 2, 4, 8, 16},
    Kind.ENUM: {1, 2, 4, 8},
    Kind.ENUM64: {1, 2, 4, 8},
    Kind.FLOAT: {2, 4, 8, 12, 16},
}


def check_soundness(raw: bytes) -> None:
    """Checks every reference in BTF. Raises a `LoadError` that names the first bad one."""
    btf = Btf(raw)
    strings = btf.strings()
    if len(strings) < btf.strings_size or strings[:1] != b"\0" or strings[-1:] != b"\0":
        raise _unsound("its string section is cut, or does not begin and end with NUL")
    inside: dict[int, list[int]] = {}
    for each in btf:
        _check(btf, each)
        inside[each.id] = _parts(btf, each)
    _check_loops(inside)


def _check(btf: Btf, each: BtfType) -> None:
    if each.kind in _REFERENCE:
        _check_reference(btf, each)
    elif each.kind is Kind.ARRAY:
        element, index, _count = btf.unpack("=III", each.extra)
        _check_ids(btf, each, element, index)
    elif each.kind in _MEMBERS:
        _check_ids(btf, each, *(m.type_id for m in each.members()))
    elif each.kind is Kind.DATASEC:
        _check_section(btf, each)
    elif each.kind in _SIZES:
        declared_only = each.kind is Kind.ENUM and not each.vlen and not each.size
        if each.size not in _SIZES[each.kind] and not declared_only:
            raise _unsound(f"{each.kind.name} {each.id} has {each.size} bytes")
        if each.kind is Kind.INT:
            _check_int(each)
        elif each.kind is not Kind.FLOAT:
            each.enumerators()


def _check_reference(btf: Btf, each: BtfType) -> None:
    _check_ids(btf, each, each.size_or_type)
    if each.kind is Kind.FUNC and each.target.kind is not Kind.FUNC_PROTO:
        raise _unsound(f"function {each.id} has type {each.size_or_type}, which is not a prototype")
    if each.kind is Kind.FUNC_PROTO:
        for name, type_id in btf.unpack_many("=II", each.extra, each.vlen):
            btf.string(name)
            _check_ids(btf, each, type_id)


def _check_section(btf: Btf, each: BtfType) -> None:
    for type_id, _offset, _size in btf.unpack_many("=III", each.extra, each.vlen):
        _check_ids(btf, each, type_id)
        if btf.type(type_id).kind not in (Kind.VAR, Kind.FUNC):
            raise _unsound(f"section {each.name!r} has type {type_id}, which is not a variable")


def _check_int(each: BtfType) -> None:
    _encoding, offset, bits = each.int_encoding()
    if offset + bits > each.size * 8:
        raise _unsound(f"integer {each.id} has {bits} bits in {each.size} bytes")


def _parts(btf: Btf, each: BtfType) -> list[int]:
    """Returns the types that are a part of this one, or that this one is another name of."""
    if each.kind in MODIFIERS:
        return [each.size_or_type]
    if each.kind is Kind.ARRAY:
        return [each.array()[0]]
    return [m.type_id for m in each.members()] if each.kind in _MEMBERS else []


def _check_loops(inside: dict[int, list[int]]) -> None:
    """Raises `LoadError` for a type that is a part of itself: computing its size would never end."""
    done: set[int] = set()
    for first, its_parts in inside.items():
        path: list[tuple[int, Iterator[int]]] = [(first, iter(its_parts))]
        above = {first}
        while path:
            here, parts = path[-1]
            part = next((p for p in parts if p not in done), 0)
            if part in above:
                raise _unsound(f"type {part} is a part of itself")
            if part:
                path.append((part, iter(inside[part])))
                above.add(part)
            else:
                path.pop()
                above.discard(here)
                done.add(here)


def _check_ids(btf: Btf, each: BtfType, *ids: int) -> None:
    for type_id in ids:
        if type_id >= len(btf):
            raise _unsound(f"type {each.id} refers to type {type_id}, but the last type is {len(btf) - 1}")


def _unsound(why: str) -> LoadError:
    return LoadError(
        "cannot read BTF", why=why, fix="the object is damaged: compile it again with 'clang -g -target bpf'"
    )
