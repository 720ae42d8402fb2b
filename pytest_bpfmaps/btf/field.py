"""Fields of structs and unions, and the alternatives of a union."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_bpfmaps.btf.codec import Buffer, Codec


@dataclass(frozen=True, slots=True)
class Field:
    """A named field. `offset` is in bytes from the start of the outermost struct that holds it.

    `choice` has an entry for each unnamed union around the field, the outermost first: which union it is, and
    which of its alternatives. All fields of an unnamed struct in a union are one alternative. A `tail` is a
    flexible array at the struct's end, or ends in one.
    """

    name: str
    codec: Codec
    offset: int
    choice: tuple[tuple[int, int], ...] = ()
    tail: bool = False

    def decode(self, data: Buffer, start: int, *, rest: bool = True) -> Any:
        """Returns the field's value in the struct at `start`. With `rest`, a tail takes what follows."""
        decode = self.codec.decode_rest if rest and self.tail else self.codec.decode
        return decode(data, start + self.offset)

    @property
    def bits(self) -> int:
        """A mask of the struct's bits that the field's value depends on."""
        return self.codec.bits() << self.offset * 8


@dataclass(frozen=True, slots=True)
class Union:
    """An unnamed union. Each of its alternatives has fields and further unions."""

    alternatives: list[list[Field | Union]]


def arrange(fields: Iterable[Field], depth: int = 0) -> list[Field | Union]:
    """Returns the fields in order. A `Union` replaces the first field of a union, and holds all of them."""
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
            made.append(field)  # the union replaces it below
        unions.setdefault(union, {}).setdefault(alternative, []).append(field)
    for union, alternatives in unions.items():
        made[places[union]] = Union([arrange(each, depth + 1) for each in alternatives.values()])
    return made


def flat(items: Iterable[Field | Union]) -> list[Field]:
    """Returns all fields, those in unions, too."""
    made: list[Field] = []
    for item in items:
        made += [item] if isinstance(item, Field) else flat(i for each in item.alternatives for i in each)
    return made


def suffice(items: Iterable[Field | Union], names: Container[Any]) -> bool:
    """Returns whether `names` has all fields, and for each union all fields of at least one alternative."""
    return all(
        item.name in names
        if isinstance(item, Field)
        else any(suffice(each, names) for each in item.alternatives)
        for item in items
    )


def needed(items: Iterable[Field | Union], names: Container[Any]) -> list[Field]:
    """Returns the fields that `names` lacks for `suffice`."""
    made: list[Field] = []
    for item in items:
        if isinstance(item, Field):
            made += [] if item.name in names else [item]
        elif not any(suffice(each, names) for each in item.alternatives):
            begun = [each for each in item.alternatives if any(f.name in names for f in flat(each))]
            made += needed((begun or item.alternatives)[0], names)
    return made


def first_alternatives(items: Iterable[Field | Union]) -> list[Field]:
    """Returns the fields. A union gives those of its first alternative."""
    made: list[Field] = []
    for item in items:
        made += [item] if isinstance(item, Field) else first_alternatives(item.alternatives[0])
    return made


def positions(items: Iterable[Field | Union]) -> list[Field]:
    """Returns the fields that have a place in a tuple, so that the tuple has the whole value.

    A union gives the fields of its first alternative when they show all bits of the union. Otherwise it gives
    the fields of all alternatives.
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
