"""Codecs of enums, and of bitfields, which may hold an enum."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any

from pytest_bpfmaps.btf.codec import BoolCodec, Buffer, Codec, IntCodec, checked_int, int_range
from pytest_bpfmaps.btf.enumerator import Enumerator, warn_of_name
from pytest_bpfmaps.errors import MapValueError, closest

_RESERVED = re.compile(r"$|mro$|_.*_$", re.DOTALL)  # damaged types may have an empty name


class UnknownEnumeratorError(MapValueError):
    """A text is no name of an enum. A look-up of a key writes nothing: it catches this, and calls `warn`."""

    def of(self, codec: EnumCodec, name: str) -> UnknownEnumeratorError:
        """Stores the enum and the text for `warn`."""
        self._codec, self._name = codec, name
        return self

    def warn(self) -> None:
        """Gives the warning that a comparison with that text gives."""
        warn_of_name(self._name, self._codec.name, self._codec.names)


class EnumCodec(IntCodec):
    """An enum. The value is a member of an `IntEnum` made from BTF, or an `int` when it has no name.

    Takes a member, an int, or an enumerator's name. A member equals all of them.
    """

    def __init__(self, name: str, size: int, signed: bool, enumerators: list[tuple[str, int]]) -> None:
        super().__init__(name, size, signed)
        self.names = dict(enumerators)
        # a C enum may hold any value of its width, so not every value has a member
        self.type: type[IntEnum] = _make(name.removeprefix("enum ") or "enum", self.names)
        self._members: dict[int, Any] = {int(m): m for m in self.type}

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        number = self._struct.unpack_from(data, offset)[0]
        return self._members.get(number, number)

    def decode_all(self, data: Buffer) -> list[Any]:
        return [self._members.get(v, v) for v in super().decode_all(data)]

    def from_int(self, number: int) -> Any:
        """Returns the member for a number, or the number when it has none."""
        return self._members.get(number, number)

    def is_called(self, value: int, name: str) -> bool:
        """Returns whether a value has that name. Warns of a name that the enum does not have."""
        if self.names and name not in self.names:
            warn_of_name(name, self.name, self.names)
        return name in self.names and value == self.names[name]

    def to_int(self, value: Any, where: str) -> int:
        if isinstance(value, str):
            if value not in self.names:
                raise self._unknown(value, where)
            value = self.names[value]
        return super().to_int(value, where)

    def _unknown(self, name: str, where: str) -> MapValueError:
        what, on = f"cannot store {name!r}", f"in {where} ({self.name})"
        if self.names:
            fix = closest(name, self.names)
            return UnknownEnumeratorError(what, on=on, why="the enum has no such name", fix=fix).of(
                self, name
            )
        return MapValueError(
            what,
            on=on,
            why="its names are not known: clang before 15 writes half of a 64-bit enum's values",
            fix="give the number, or compile with clang 15 or later",
        )


def _make(name: str, names: dict[str, int]) -> type[IntEnum]:
    """Makes the enum without the names that Python reserves. Their values stay numbers."""
    enum: Any = Enumerator  # called with names, it makes a class
    made: type[IntEnum] = enum(name, {n: v for n, v in names.items() if not _RESERVED.match(n)})
    return made


class BitfieldCodec(Codec):
    """A bitfield: `bits` bits that begin at bit `shift`. They hold a value of `base`."""

    is_bitfield = True

    def __init__(self, base: Codec, shift: int, bits: int) -> None:
        self.name = f"{base.name} : {bits}"
        self.base = base
        self.shift = shift
        self.width = bits
        self.size = (shift + bits + 7) // 8
        self.signed = bool(getattr(base, "signed", False))
        self._mask = (1 << bits) - 1
        self._low, self._high = int_range(bits, self.signed)

    @property
    def exact(self) -> bool:
        return self.base.exact or self.width == 1

    def bits(self, *, exact: bool = False) -> int:
        return 0 if exact and not self.exact else self._mask << self.shift

    def shown_bits(self, data: Buffer, offset: int = 0) -> int:
        return (self._mask if self.exact else 1) << self.shift

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        word = int.from_bytes(data[offset : offset + self.size], "little")
        number = (word >> self.shift) & self._mask
        if self.signed and number > self._high:
            number -= 1 << self.width
        if isinstance(self.base, EnumCodec):
            return self.base.from_int(number)
        return bool(number) if isinstance(self.base, BoolCodec) else number

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        if isinstance(self.base, EnumCodec):
            value = self.base.to_int(value, where)
        number = checked_int(self, value, where, self._low, self._high) & self._mask
        word = int.from_bytes(out[offset : offset + self.size], "little") | number << self.shift
        out[offset : offset + self.size] = word.to_bytes(self.size, "little")
