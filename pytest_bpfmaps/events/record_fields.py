"""Finds fields of records by name; a dotted name reaches into nested structs: ``hdr.pid``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pytest_bpfmaps.btf import Codec, Record
from pytest_bpfmaps.btf.comparison import never_equal, same_field
from pytest_bpfmaps.btf.enums import BitfieldCodec, EnumCodec
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import MapValueError, NameLookupError, NoValueError, closest


class Missing:
    """The value of a field that a record does not have; it prints as the reason."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __repr__(self) -> str:
        return self._why


_OF_OTHERS, _NOT_SENT = Missing("not there"), Missing("not sent")


def field_at(codec: Codec, name: str, within: str = "") -> Field:
    """Returns the field, with its offset in the outermost struct.

    `within` is the dotted prefix of this struct in the outermost one. Raises `NameLookupError` with fields of
    the same name in nested structs, or else with the closest names.
    """
    first, _, rest = name.partition(".")
    known: Mapping[str, Field] = getattr(codec, "by_name", {})
    field = known.get(first)
    if field is None:
        inside = [
            f"{within}{n}.{first}" for n, f in known.items() if first in getattr(f.codec, "by_name", {})
        ]
        fix = f"did you mean {' or '.join(map(repr, inside))}?" if inside else closest(first, known)
        raise NameLookupError("no field", on=f"{first!r} in {codec.name}", fix=fix)
    if not rest:
        return field
    if not isinstance(field.codec, StructCodec):
        why = f"{field.codec.name} is not a struct"
        raise NameLookupError("no field", on=f"{rest!r} in {first!r}", why=why)
    inner = field_at(field.codec, rest, f"{within}{first}.")
    return replace(inner, offset=field.offset + inner.offset)


def value_of(record: Any, name: str) -> Any:
    """Returns a field's value, or a `Missing` if the record was sent without it, or has another type."""
    value = record
    for part in name.split("."):
        try:
            value = value[part]
        except KeyError:
            return _OF_OTHERS
        except NoValueError:
            return _NOT_SENT
    return value


def check_names(codec: Codec, wanted: Mapping[str, Any], on: str) -> None:
    """Checks that a record may have the wanted fields, also those of a nested mapping.

    Raises `NameLookupError` for a field that the records do not have, and `MapValueError` for a value that
    its type can't have: waiting for it would never end, and its absence would prove nothing.
    """
    structs: tuple[Codec, ...] = getattr(codec, "structs", (codec,))  # if there are several, one must have it
    for name, value in wanted.items():
        fields, error = [], None
        for struct in structs:
            try:
                fields.append(field_at(struct, name))
            except NameLookupError as e:
                error = e
        if not fields:
            known = {n for s in structs for n in getattr(s, "by_name", {})}
            nested = error if error and "." in name + (error.fix or "") else None
            raise NameLookupError(
                "no field",
                on=f"{name!r} in the records from {on}",
                why=nested.why if nested else None,
                fix=nested.fix if nested else closest(name, known),
            )
        if isinstance(value, Mapping) and isinstance(fields[0].codec, StructCodec):
            check_names(fields[0].codec, value, on)
        codecs = [f.codec for f in fields]
        if isinstance(value, str):
            _check_enumerator(codecs, name, value, on)
        _check_possible(codecs, name, value, on)


def _check_enumerator(codecs: list[Codec], field: str, value: str, on: str) -> None:
    """Raises `MapValueError` for a text that is not a name in any of the fields' enums."""
    enums = [c.base if isinstance(c, BitfieldCodec) else c for c in codecs]
    names = [each.names for each in enums if isinstance(each, EnumCodec) and each.names]
    if len(names) == len(codecs) and not any(value in each for each in names):
        raise MapValueError(
            "cannot wait for",
            on=f"{field}={value!r} in the records from {on}",
            why="the enum has no such name",
            fix=closest(value, {n for each in names for n in each}),
        )


def _check_possible(codecs: list[Codec], field: str, value: Any, on: str) -> None:
    """Raises `MapValueError` for a value that none of the fields can have."""
    reasons = [never_equal(codec, value) for codec in codecs]
    first = reasons[0]
    if first is None or None in reasons:
        return
    raise MapValueError(
        "cannot wait for",
        on=f"{field}={value!r} in the records from {on}",
        why=f"no {codecs[0].name} has that value: {first.why}",
        fix=first.fix,
    )


def fits(record: Any, wanted: Mapping[str, Any]) -> bool:
    """Returns whether all fields have the wanted values."""
    return all(field_fits(record, name, value) for name, value in wanted.items())


def field_fits(record: Any, name: str, wanted: Any) -> bool:
    """Returns whether a field has the wanted value, or the callable `wanted` accepts it.

    If `wanted` is a mapping for a nested struct, only the fields in it are compared.
    """
    value = value_of(record, name)
    if isinstance(value, Missing):
        return False
    if isinstance(value, Record) and isinstance(wanted, Mapping):
        return fits(value, wanted)
    if callable(wanted) and not isinstance(wanted, Record):
        return bool(wanted(value))
    return same_field(record, field_at(record.__codec__, name), value, wanted)
