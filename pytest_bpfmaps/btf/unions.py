"""Writes unions. Members share bytes, and members that disagree are an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_bpfmaps.btf.codec import EXACT, NOT_ZERO, STRENGTHS
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.errors import MapValueError


@dataclass(frozen=True, slots=True)
class Member:
    """A field of a union's alternative, its value, and the function that writes it."""

    field: Field
    value: Any
    encode: Callable[[bytearray, int, Any, str], None]


def write_members(out: bytearray, span: slice, members: Sequence[Member], where: str, name: str) -> None:
    """Writes union members into the struct `name` at `span`, then checks that each reads back as given.

    A member that determines its bits exactly overrides the others; a text, for example, does not determine
    the bytes after its NUL. A flexible array may make `out` longer. Raises `MapValueError` for two members
    that disagree.
    """
    start, size = span.start, span.stop - span.start
    written = []
    for member in members:
        alone = bytearray(size)
        member.encode(alone, member.field.offset, member.value, f"{where}.{member.field.name}")
        written.append((member.field, alone))
    merged, longest = int.from_bytes(out[span], "little"), max(len(alone) for _, alone in written)
    set_bytes, said = 0, 0
    for strength in STRENGTHS:
        for field, alone in written:
            bits = _says(field, alone, strength, size)
            merged = merged & ~bits | _number(alone) & bits
            if strength == NOT_ZERO:
                set_bytes |= _number(alone) & bits
            else:
                said |= bits
    merged = _with_set_bytes(merged, set_bytes, said)
    raw = merged.to_bytes(longest, "little")
    out[start : start + longest] = raw
    if len(written) > 1:
        for field, alone in written:
            _check(field, alone, raw, [f for f, _ in written], f"{where} ({name})", rest=len(alone) > size)


def _with_set_bytes(merged: int, set_bytes: int, said: int) -> int:
    """Sets a bit in each byte that is zero and must not be: one that no other member determines."""
    while set_bytes:
        at = (set_bytes & -set_bytes).bit_length() - 1 & ~7
        set_bytes &= ~(0xFF << at)
        free = ~said >> at & 0xFF
        if not merged >> at & 0xFF and free:
            merged |= (free & -free) << at
    return merged


def _says(field: Field, alone: bytearray, strength: int, size: int) -> int:
    if len(alone) > size:  # a flexible array, which shares its bytes with no other member
        return -1 << field.offset * 8 if strength == EXACT else 0
    return field.codec.says(alone, field.offset, strength) << field.offset * 8


def _check(
    field: Field, alone: bytearray, raw: bytes, fields: Sequence[Field], on: str, *, rest: bool
) -> None:
    given, found = field.decode(alone, 0, rest=rest), field.decode(raw, 0, rest=rest)
    if given == found or (_number(alone) ^ _number(raw)) & field.bits == 0 or repr(given) == repr(found):
        return  # a NaN does not even equal itself, but its text does
    other = next((f.name for f in fields if f is not field and f.bits & field.bits), "another")
    raise MapValueError(
        f"cannot store fields {field.name!r} and {other!r}",
        on=f"in {on}",
        why=f"they share bytes of a union: one is given as {given!r}, and the other changes it to {found!r}",
        fix="name the members of one alternative only: leave the others out of the mapping",
    )


def _number(raw: bytes | bytearray) -> int:
    return int.from_bytes(raw, "little")
