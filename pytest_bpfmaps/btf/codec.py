"""The base of all codecs, and the codecs of plain values: integers, booleans, floats.

A codec turns `size` bytes into a Python value and back. Messages name the place `where`, for example
``map 'events' value.comm``.
"""

from __future__ import annotations

import math
import operator
import struct
import sys
from array import array
from functools import cached_property
from typing import Any

from pytest_bpfmaps.btf.listed_keys import ListedBool, ListedFloat, odd_note
from pytest_bpfmaps.errors import MapOverflowError, MapTypeError

Buffer = bytes | bytearray | memoryview
NOT_ZERO, ROUNDED, UP_TO_NUL, EXACT = STRENGTHS = range(4)
"""How exactly a value that is written determines its bits.

`NOT_ZERO`: a ``_Bool`` needs only some bit set. `ROUNDED`: the bits of a NaN may change. `UP_TO_NUL`: a text
determines its bytes up to the NUL. `EXACT`: any other value determines every bit.
"""


class Codec:
    """The base of all codecs. `name` is the type as C writes it."""

    size: int
    name: str
    flexible = False
    """Whether the type ends in a flexible array, which has what a record has after its first `size` bytes."""
    is_bitfield = False
    network_order = False
    """Whether C programs keep the type in network byte order. It then takes IP addresses."""
    absent = False
    """Whether there is no value to decode. `decode` then raises `NoValueError`."""

    @cached_property
    def shortened(self) -> dict[tuple[int, int], Codec]:
        """The codecs of records that were sent in part, by size and padding in bytes.

        `absent_fields` makes them.
        """
        return {}

    @property
    def exact(self) -> bool:
        """Whether different bytes are always different values: no padding, and nothing after a NUL."""
        return False

    def bits(self, *, exact: bool = False) -> int:
        """Returns a mask of the bits that the value depends on, bit 0 first.

        With `exact` the mask has only bits that the value shows exactly.
        """
        return 0 if exact and not self.exact else (1 << self.size * 8) - 1

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        """Returns the Python value of the bytes at `offset`."""
        raise NotImplementedError

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        """Writes `value` at `offset`. The bytes there must be zero.

        Raises `MapTypeError`, `MapValueError` or `MapOverflowError`, which name `where`.
        """
        raise NotImplementedError

    def encode(self, value: Any, where: str) -> bytes:
        """Returns `value` as `size` bytes."""
        out = bytearray(self.size)
        self.encode_into(out, 0, value, where)
        return bytes(out)

    def decode_all(self, data: Buffer) -> list[Any]:
        """Returns the values of an array of this type."""
        return self.decode_each(data, 0, self.size, len(data) // self.size if self.size else 0)

    def decode_each(self, data: Buffer, offset: int, step: int, count: int) -> list[Any]:
        """Returns `count` values. The first is at `offset`, each next one is `step` bytes further."""
        decode = self.decode
        return [decode(data, offset + i * step) for i in range(count)]

    strength = EXACT
    """How exactly a value determines its bits: one of `STRENGTHS`."""

    def says(self, data: Buffer, offset: int, strength: int) -> int:
        """Returns a mask of the bits, from `offset` on, that the value determines with that strength."""
        return self.bits() if strength == self.strength else 0

    listed_class: Any = None
    """The subclass of `Listed` for keys of this type, when other bytes may have the same value."""

    def shown_bits(self, data: Buffer, offset: int = 0) -> int:
        """Returns a mask of the bits that the value at `offset` shows; writing it makes all others zero."""
        return self.bits()

    def odd_bits(self, raw: bytes) -> int:
        """Returns the bits of `raw` that are set, although writing its value would make them zero."""
        return 0 if self.exact else int.from_bytes(raw, "little") & ~self.shown_bits(raw)

    def clean(self, raw: bytes) -> bytes:
        """Returns the bytes that writing the value of `raw` gives."""
        return raw if self.exact else self.encode(self.decode(raw), "")

    def listed(self, raw: bytes) -> Any:
        """Returns a key as a map lists it: a plain value when writing that gives `raw`, else a `Listed`."""
        value = self.decode(raw)
        if self.exact or self.listed_class is None or not (odd := self.odd_bits(raw)):
            return value
        return self.listed_class(value, raw, odd_note(raw, odd))

    def listed_all(self, data: Buffer) -> list[Any]:
        """Returns the keys that are packed in `data`, as `listed` returns each."""
        size = self.size
        if self.exact or not size:
            return self.decode_all(data)
        return [self.listed(bytes(data[at : at + size])) for at in range(0, len(data), size)]

    def encode_all(self, values: list[Any], where: str) -> bytes:
        """Returns the bytes of an array of this type."""
        encode = self.encode
        return b"".join([encode(value, where) for value in values])

    def decode_rest(self, data: Buffer, offset: int = 0) -> Any:
        """Does what `decode` does, for a record that may be longer than `size`."""
        return self.decode(data, offset)

    def encode_rest(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        """Does what `encode_into` does. A flexible array makes `out` as long as it needs."""
        self.encode_into(out, offset, value, where)

    def encode_record(self, value: Any, where: str) -> bytes:
        """Returns `value` as a record: `size` bytes, or more when the type ends in a flexible array."""
        out = bytearray(self.size)
        self.encode_rest(out, 0, value, where)
        return bytes(out)

    def __repr__(self) -> str:
        return f"<codec {self.name}, {self.size} bytes>"


def wrong_type(value: Any, codec: Codec, where: str, wanted: str) -> MapTypeError:
    """Returns the error for a value of the wrong Python type."""
    return MapTypeError(
        f"cannot store {short(value)}",
        on=f"in {where} ({codec.name})",
        why=f"it is {type(value).__name__}, not {wanted}",
        fix=f"give {wanted}",
    )


def short(value: Any) -> str:
    """Returns a value as text for a message. A long text is cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_INT_FORMATS = {1: "b", 2: "h", 4: "i", 8: "q"}


class IntCodec(Codec):
    """An integer of 1, 2, 4 or 8 bytes. The value is an `int`."""

    exact = True
    bounded = False
    """Whether the type takes fewer values than its bytes can hold."""

    def __init__(self, name: str, size: int, signed: bool) -> None:
        self.name = name
        self.size = size
        self.signed = signed
        letter = _INT_FORMATS[size]
        self.format: Any = letter if signed else letter.upper()
        self._struct = struct.Struct("=" + self.format)
        self.minimum, self.maximum = int_range(size * 8, signed)

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return self._struct.unpack_from(data, offset)[0]

    def decode_all(self, data: Buffer) -> list[Any]:
        return memoryview(data).cast("B").cast(self.format).tolist()

    def encode_all(self, values: list[Any], where: str) -> bytes:
        if self.bounded:
            return super().encode_all(values, where)
        try:
            return array(self.format, values).tobytes()
        except (TypeError, OverflowError):
            return super().encode_all(values, where)  # takes more types, and names a value that does not fit

    def to_int(self, value: Any, where: str) -> int:
        """Returns `value` as an int. Raises an error when it does not fit."""
        return checked_int(self, value, where, self.minimum, self.maximum)

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        self._struct.pack_into(out, offset, self.to_int(value, where))

    def encode(self, value: Any, where: str) -> bytes:
        if type(value) is int and not self.bounded:
            try:
                return self._struct.pack(value)
            except struct.error:
                pass  # the line below raises the error
        return self._struct.pack(self.to_int(value, where))


def int_range(bits: int, signed: bool) -> tuple[int, int]:
    """Returns the smallest and the largest value of an integer with that many bits."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def checked_int(codec: Codec, value: Any, where: str, minimum: int, maximum: int) -> int:
    """Returns `value` as an int from `minimum` to `maximum`, both included. Raises an error otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        if isinstance(getattr(value, "packed", None), bytes):  # an ipaddress object
            raise MapTypeError(
                f"cannot store {value!r}",
                on=f"in {where} ({codec.name})",
                why="the type does not say in which byte order it holds an address",
                fix="declare it as __be32; or give int(address), or socket.htonl(int(address))",
            ) from None
        raise wrong_type(value, codec, where, "an int") from None
    if minimum <= number <= maximum:
        return number
    raise MapOverflowError(
        f"cannot store {number}",
        on=f"in {where} ({codec.name})",
        why="it is out of range",
        fix=f"give an int from {minimum} to {maximum}",
    )


class WideIntCodec(Codec):
    """An integer of another width, 128 bits for example. The value is an `int`."""

    exact = True

    def __init__(self, name: str, size: int, signed: bool) -> None:
        self.name = name
        self.size = size
        self.signed = signed
        self.minimum, self.maximum = int_range(size * 8, signed)

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return int.from_bytes(data[offset : offset + self.size], sys.byteorder, signed=self.signed)

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        number = checked_int(self, value, where, self.minimum, self.maximum)
        out[offset : offset + self.size] = number.to_bytes(self.size, sys.byteorder, signed=self.signed)


class BoolCodec(IntCodec):
    """A ``bool``. The value is a `bool`. Takes 0 and 1 as well."""

    exact = False
    strength = NOT_ZERO
    bounded = True
    listed_class = ListedBool

    def __init__(self, name: str, size: int = 1) -> None:
        super().__init__(name, size, signed=False)
        self.maximum = 1

    def shown_bits(self, data: Buffer, offset: int = 0) -> int:
        return 1

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return self._struct.unpack_from(data, offset)[0] != 0

    def decode_all(self, data: Buffer) -> list[Any]:
        return [v != 0 for v in super().decode_all(data)]


class FloatCodec(Codec):
    """A floating point number of 2, 4 or 8 bytes. The value is a `float`."""

    listed_class = ListedFloat
    strength = ROUNDED

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.format = {2: "e", 4: "f", 8: "d"}[size]
        self._struct = struct.Struct("=" + self.format)

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return self._struct.unpack_from(data, offset)[0]

    def shown_bits(self, data: Buffer, offset: int = 0) -> int:
        value = self.decode(data, offset)
        if math.isnan(value):
            return 0
        minus_zero = value == 0 and math.copysign(1, value) < 0  # it equals 0.0
        return self.bits() >> minus_zero

    def clean(self, raw: bytes) -> bytes:
        return self._struct.pack(self.decode(raw) + 0.0)  # 0.0 for -0.0

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        if isinstance(value, str | bytes):
            raise wrong_type(value, self, where, "a float")
        try:
            self._struct.pack_into(out, offset, float(value))
        except OverflowError as e:
            raise MapOverflowError(
                f"cannot store {value}",
                on=f"in {where} ({self.name})",
                why=str(e),
                fix="give a smaller number",
            ) from None
        except (TypeError, ValueError):
            raise wrong_type(value, self, where, "a float") from None
