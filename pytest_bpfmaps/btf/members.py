"""Writing members of unions, which share bytes: those that disagree are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MapValueError
from .field import Field


@dataclass(frozen=True, slots=True)
class Member:
    """A field of a union's alternative, its value, and what writes it."""

    field: Field
    value: Any
    encode: Callable[[bytearray, int, Any, str], None]


def write_members(out: bytearray, span: slice, members: Sequence[Member], where: str, name: str) -> None:
    """Writes them over each other into the struct `name` at `span`; then each must read as it was given.

    Those that show all their bits come last: a text, for example, has no say in what follows its NUL. A
    flexible array may make `out` longer. Raises `MapValueError` for two that disagree.
    """
    start, size = span.start, span.stop - span.start
    merged, longest = int.from_bytes(out[span], "little"), size
    written = []
    for member in sorted(members, key=lambda m: m.field.codec.exact):
        field = member.field
        alone = bytearray(size)
        member.encode(alone, field.offset, member.value, f"{where}.{field.name}")
        bits = field.bits if len(alone) == size else -1 << field.offset * 8
        merged = merged & ~bits | int.from_bytes(alone, "little") & bits
        longest = max(longest, len(alone))
        written.append((field, alone))
    raw = merged.to_bytes(longest, "little")
    out[start : start + longest] = raw
    if len(written) > 1:
        for field, alone in written:
            _check(field, alone, raw, [f for f, _ in written], f"{where} ({name})", rest=len(alone) > size)


def _check(
    field: Field, alone: bytearray, raw: bytes, fields: Sequence[Field], on: str, *, rest: bool
) -> None:
    given, found = field.decode(alone, 0, rest=rest), field.decode(raw, 0, rest=rest)
    if given == found or (_number(alone) ^ _number(raw)) & field.bits == 0:
        return
    other = next((f.name for f in fields if f is not field and f.bits & field.bits), "another")
    raise MapValueError(
        f"cannot store fields {field.name!r} and {other!r}",
        on=f"in {on}",
        why=f"they share bytes of a union: one is given as {given!r}, and the other makes that {found!r}",
        fix="name the members of one alternative only: leave the others out of the mapping",
    )


def _number(raw: bytes | bytearray) -> int:
    return int.from_bytes(raw, "little")
