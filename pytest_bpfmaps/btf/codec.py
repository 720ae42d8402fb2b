"""Codecs of plain values: integers, booleans, floats; the base of all.

A codec turns `size` bytes into a Python value and back. `where` names the place in messages, for example
``map 'events' value.comm``.
"""

from __future__ import annotations

import operator
import struct
import sys
from array import array
from functools import cached_property
from typing import Any

from pytest_bpfmaps.btf.listed_keys import ListedBool, ListedFloat
from pytest_bpfmaps.errors import MapOverflowError, MapTypeError

Buffer = bytes | bytearray | memoryview
NOT_ZERO, ROUNDED, UP_TO_NUL, EXACT = STRENGTHS = range(4)
"""Of what is written, the bits of a ``_Bool`` say no more than that one is set; those of a NaN may change;
a text says nothing of what follows its NUL; anything else says each bit."""


class Codec:
    """Base of all codecs. `name` is the C type as a person writes it."""

    size: int
    name: str
    flexible = False
    """Whether it ends in a flexible array: in a record that is longer than `size`, that has the rest."""
    is_bitfield = False
    network_order = False
    """Whether C programs keep it in network byte order; then it takes addresses of the Internet."""
    absent = False
    """Whether there is no value to decode: `decode` raises `NoValueError`."""

    @cached_property
    def shortened(self) -> dict[tuple[int, int], Codec]:
        """Codecs of its records that were sent in part, by size and padding in bytes.

        `absent_fields` makes them.
        """
        return {}

    @property
    def exact(self) -> bool:
        """Whether different bytes are always different values: no padding, nothing after a NUL."""
        return False

    def bits(self, *, exact: bool = False) -> int:
        """A mask of the bits that the value depends on, bit 0 first; with `exact`, of those that it shows."""
        return 0 if exact and not self.exact else (1 << self.size * 8) - 1

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        """The Python value of the bytes at `offset`."""
        raise NotImplementedError

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        """Writes `value` at `offset`; the bytes there are zero before.

        Raises `MapTypeError`, `MapValueError` or `MapOverflowError` naming `where`.
        """
        raise NotImplementedError

    def encode(self, value: Any, where: str) -> bytes:
        """`value` as `size` bytes."""
        out = bytearray(self.size)
        self.encode_into(out, 0, value, where)
        return bytes(out)

    def decode_all(self, data: Buffer) -> list[Any]:
        """The values of an array of this type."""
        return self.decode_each(data, 0, self.size, len(data) // self.size if self.size else 0)

    def decode_each(self, data: Buffer, offset: int, step: int, count: int) -> list[Any]:
        """`count` values, the first at `offset`, each `step` bytes after the one before."""
        decode = self.decode
        return [decode(data, offset + i * step) for i in range(count)]

    strength = EXACT
    """How exactly its bits are what a value says: one of `STRENGTHS`."""

    def says(self, data: Buffer, offset: int, strength: int) -> int:
        """A mask of the bits, from `offset` on, that the value there says with that strength."""
        return self.bits() if strength == self.strength else 0

    listed_class: Any = None
    """The `Listed` for a key of this type whose bytes may be others than those its value is written as."""

    def listed(self, raw: bytes, *, always: bool = True) -> Any:
        """A key as a map lists it; see `Listed`. Without `always` a plain value where that is as good."""
        value = self.decode(raw)
        if self.exact or self.listed_class is None or (not always and self.encode(value, "") == raw):
            return value
        return self.listed_class(value, raw)

    def listed_all(self, data: Buffer, *, always: bool) -> list[Any]:
        """Keys that are packed one after another; see `listed`."""
        size = self.size
        if self.exact or not size:
            return self.decode_all(data)
        return [self.listed(bytes(data[at : at + size]), always=always) for at in range(0, len(data), size)]

    def encode_all(self, values: list[Any], where: str) -> bytes:
        """The values of an array of this type, packed."""
        encode = self.encode
        return b"".join([encode(value, where) for value in values])

    def decode_rest(self, data: Buffer, offset: int = 0) -> Any:
        """As `decode`, of a record that may be longer than `size`."""
        return self.decode(data, offset)

    def encode_rest(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        """As `encode_into`; a flexible array makes `out` as long as it needs."""
        self.encode_into(out, offset, value, where)

    def encode_record(self, value: Any, where: str) -> bytes:
        """`value` as a record: `size` bytes, or more when it ends in a flexible array."""
        out = bytearray(self.size)
        self.encode_rest(out, 0, value, where)
        return bytes(out)

    def __repr__(self) -> str:
        return f"<codec {self.name}, {self.size} bytes>"


def wrong_type(value: Any, codec: Codec, where: str, wanted: str) -> MapTypeError:
    """The error for a value of the wrong Python type."""
    return MapTypeError(
        f"cannot store {short(value)}",
        on=f"in {where} ({codec.name})",
        why=f"it is {type(value).__name__}, not {wanted}",
        fix=f"give {wanted}",
    )


def short(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_INT_FORMATS = {1: "b", 2: "h", 4: "i", 8: "q"}


class IntCodec(Codec):
    """An integer of 1, 2, 4 or 8 bytes; `int`."""

    exact = True
    bounded = False
    """Whether it takes fewer values than its bytes can hold."""

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
            return super().encode_all(values, where)  # takes more, and says which value does not fit

    def to_int(self, value: Any, where: str) -> int:
        """`value` as an int that fits."""
        return checked_int(self, value, where, self.minimum, self.maximum)

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        self._struct.pack_into(out, offset, self.to_int(value, where))

    def encode(self, value: Any, where: str) -> bytes:
        if type(value) is int and not self.bounded:
            try:
                return self._struct.pack(value)
            except struct.error:
                pass  # said below
        return self._struct.pack(self.to_int(value, where))


def int_range(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest value of an integer with that many bits."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def checked_int(codec: Codec, value: Any, where: str, minimum: int, maximum: int) -> int:
    """`value` as an int within the bounds, both included."""
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
    """An integer of another width, 128 bits for example; `int`."""

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
    """A ``bool``: `bool`; takes 0 and 1 as well."""

    exact = False
    strength = NOT_ZERO
    bounded = True
    listed_class = ListedBool

    def __init__(self, name: str, size: int = 1) -> None:
        super().__init__(name, size, signed=False)
        self.maximum = 1

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return self._struct.unpack_from(data, offset)[0] != 0

    def decode_all(self, data: Buffer) -> list[Any]:
        return [v != 0 for v in super().decode_all(data)]


class FloatCodec(Codec):
    """A floating point number of 2, 4 or 8 bytes; `float`."""

    listed_class = ListedFloat
    strength = ROUNDED

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.format = {2: "e", 4: "f", 8: "d"}[size]
        self._struct = struct.Struct("=" + self.format)

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return self._struct.unpack_from(data, offset)[0]

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
