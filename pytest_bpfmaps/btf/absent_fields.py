"""Fields without a value: the program sent a part of the record, or the kernel returned a part of a context.

Many programs send only the used part of a struct:
``bpf_ringbuf_output(&rb, e, offsetof(struct event, args) + n, 0)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pytest_bpfmaps.btf.array_codecs import ArrayCodec, BytesCodec, TextCodec
from pytest_bpfmaps.btf.codec import Buffer, Codec
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import NoValueError


class AbsentCodec(Codec):
    """Replaces the codec of a field that has no value. Reading it raises an error with `why` and `fix`."""

    absent = True

    def __init__(self, codec: Codec, field: str, on: str, why: str, fix: str) -> None:
        self.name = codec.name
        self.size = codec.size
        self._on = f"{field!r} of {on}" if field else on
        self._why = why
        self._fix = fix

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        raise NoValueError("cannot read", on=self._on, why=self._why, fix=self._fix)


def without(codec: StructCodec, reasons: Mapping[str, tuple[str, str]], on: str) -> StructCodec:
    """Returns a codec of the same struct in which the fields named in `reasons` have no value.

    `reasons` has for each of these fields why it has no value, and what to do.
    """
    fields = [
        replace(f, codec=AbsentCodec(f.codec, f.name, on, *reasons[f.name])) if f.name in reasons else f
        for f in codec.fields
    ]
    return StructCodec(codec.name, codec.size, fields, codec.hidden)


def shortened(codec: Codec, size: int, padding: int = 0) -> Codec:
    """Returns the codec of records of which only the first `size` bytes were sent. It is made once per size.

    An array that is cut keeps the elements that were sent. Fields after the cut have no value. Nobody knows
    whether the program sent the last `padding` bytes. In a struct that ends in an array they count as sent.
    """
    known = codec.shortened
    if (size, padding) not in known:
        known[size, padding] = _cut(codec, "", f"a record of {size} bytes", size, padding)
    return known[size, padding]


def _cut(codec: Codec, field: str, on: str, size: int, padding: int) -> Codec:
    if isinstance(codec, StructCodec):
        return _cut_struct(codec, on, size, padding)
    if isinstance(codec, ArrayCodec | TextCodec | BytesCodec):
        return _cut_array(codec, size)
    return AbsentCodec(codec, field, on, f"{codec.name} has {codec.size}", "send all of it")


def _cut_struct(codec: StructCodec, on: str, size: int, padding: int) -> StructCodec:
    end = max((f.offset for f in codec.fields), default=0)
    last = [f for f in codec.fields if f.offset == end]
    if len(last) == 1 and end <= size and _is_array(last[0]):
        padding = 0
    fields = [_cut_field(codec, f, on, size, padding, trailing=f in last) for f in codec.fields]
    return StructCodec(codec.name, size, fields, codec.hidden)


def _is_array(field: Field) -> bool:
    return field.tail or isinstance(field.codec, ArrayCodec | TextCodec | BytesCodec)


def _cut_field(
    owner: StructCodec, field: Field, on: str, size: int, padding: int, *, trailing: bool
) -> Field:
    needed = field.offset + field.codec.size
    if needed <= size - padding:
        return field
    if needed <= size:
        why = (
            "the kernel rounds the size of a perf buffer's record up, by at most 7 bytes; "
            f"whether the program sent this part of {owner.name} is not known"
        )
        fix = "send the whole struct, or 8 bytes more"
        return replace(field, codec=AbsentCodec(field.codec, field.name, on, why, fix))
    begun = field.offset < size
    if (begun and isinstance(field.codec, StructCodec)) or (
        _is_array(field) and (begun or (trailing and field.offset == size))
    ):
        return replace(field, codec=_cut(field.codec, field.name, on, size - field.offset, padding))
    why = f"the program did not send it: in {owner.name} it ends at byte {needed}"
    fix = "send more of the struct; or, if it is another struct, name that: capture('my_struct')"
    return replace(field, codec=AbsentCodec(field.codec, field.name, on, why, fix))


def _cut_array(codec: ArrayCodec | TextCodec | BytesCodec, size: int) -> Codec:
    if isinstance(codec, TextCodec):
        return TextCodec(codec.name, size)
    if isinstance(codec, BytesCodec):
        return BytesCodec(codec.name, size, codec.filled)
    return ArrayCodec(codec.name, codec.element, size // codec.element.size if codec.element.size else 0)
