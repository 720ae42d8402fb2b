"""Fields of structs and unions, and which of a union's members belong together."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_bpfmaps.btf.codec import Buffer, Codec


@dataclass(frozen=True, slots=True)
class Field:
    """A named field; `offset` in bytes from the start of the outermost struct that holds it.

    `choice` has for each union around it, from the outside in, which union and which of its alternatives: the
    fields of an unnamed struct in a union are one alternative together. A `tail` is, or ends in, a flexible
    array at the struct's end.
    """

    name: str
    codec: Codec
    offset: int
    choice: tuple[tuple[int, int], ...] = ()
    tail: bool = False

    def decode(self, data: Buffer, start: int, *, rest: bool = True) -> Any:
        """The field's value in the struct at `start`; with `rest`, a tail has what follows the struct."""
        decode = self.codec.decode_rest if rest and self.tail else self.codec.decode
        return decode(data, start + self.offset)

    @property
    def bits(self) -> int:
        """A mask of the struct's bits that its value depends on."""
        return self.codec.bits() << self.offset * 8


@dataclass(frozen=True, slots=True)
class Union:
    """A union without a name of its own: alternatives, each of fields and further unions."""

    alternatives: list[list[Field | Union]]


def arrange(fields: Iterable[Field], depth: int = 0) -> list[Field | Union]:
    """Fields in order, those of a union gathered at the place of its first one."""
    made: list[Field | Union] = []
    unions: dict[int, dict[int, list[Field]]] = {}
    places: dict[int, int] = {}
    for field in fields:
        if len(field.choice) <= depth:
            made.append(field)
            continue
        union, alternative = field.choice[depth]
        if union not in unions:
            places[union] = len(made)
            made.append(field)  # the union comes in its place below
        unions.setdefault(union, {}).setdefault(alternative, []).append(field)
    for union, alternatives in unions.items():
        made[places[union]] = Union([arrange(each, depth + 1) for each in alternatives.values()])
    return made


def flat(items: Iterable[Field | Union]) -> list[Field]:
    """All fields."""
    made: list[Field] = []
    for item in items:
        made += [item] if isinstance(item, Field) else flat(i for each in item.alternatives for i in each)
    return made


def suffice(items: Iterable[Field | Union], names: Container[Any]) -> bool:
    """Whether the names have all fields, and of each union all of one alternative at least."""
    return all(
        item.name in names
        if isinstance(item, Field)
        else any(suffice(each, names) for each in item.alternatives)
        for item in items
    )


def needed(items: Iterable[Field | Union], names: Container[Any]) -> list[Field]:
    """The fields that a mapping has to name beside `names`, which has some of them, for `suffice`."""
    made: list[Field] = []
    for item in items:
        if isinstance(item, Field):
            made += [] if item.name in names else [item]
        elif not any(suffice(each, names) for each in item.alternatives):
            begun = [each for each in item.alternatives if any(f.name in names for f in flat(each))]
            made += needed((begun or item.alternatives)[0], names)
    return made


def first_alternatives(items: Iterable[Field | Union]) -> list[Field]:
    """The fields, of each union those of the first alternative."""
    made: list[Field] = []
    for item in items:
        made += [item] if isinstance(item, Field) else first_alternatives(item.alternatives[0])
    return made


def positions(items: Iterable[Field | Union]) -> list[Field]:
    """The fields that have a place in a tuple, which then has the whole value.

    Of a union these are the first alternative's where they show all its bits, else those of all alternatives.
    """
    made: list[Field] = []
    for item in items:
        if isinstance(item, Field):
            made.append(item)
            continue
        each = [positions(alternative) for alternative in item.alternatives]
        every = [field for fields in each for field in fields]
        is_whole = _bits(every) & ~_bits(each[0], exact=True) == 0
        made += each[0] if is_whole or len(each) == 1 else every
    return made


def _bits(fields: Sequence[Field], *, exact: bool = False) -> int:
    found = 0
    for field in fields:
        found |= field.codec.bits(exact=exact) << field.offset * 8
    return found
