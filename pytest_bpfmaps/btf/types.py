"""Reads the types of a ``.BTF`` section, each at its first use."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import pairwise

from pytest_bpfmaps.errors import BpfError, LoadError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")


class Kind(IntEnum):
    """``BTF_KIND_*`` of <linux/btf.h>."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_STATIC = 0  # BTF_VAR_STATIC
MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
_KINDS = {int(k): k for k in Kind}


@dataclass(frozen=True, slots=True)
class Member:
    """A field of a struct or union. Offsets are in bits. `bit_size` is 0 unless the field is a bitfield."""

    name: str
    type_id: int
    bit_offset: int
    bit_size: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a DATASEC. Its offset in the section and its size are in bytes."""

    name: str
    type_id: int
    offset: int
    size: int
    is_static: bool

    def is_part_of(self, size: int) -> bool:
        """Returns whether it is smaller than its type, which has `size` bytes.

        clang splits a static struct into its fields, and makes a byte of a static number that has only two
        values. Their BTF still has the whole type.
        """
        return 0 < self.size < size


@dataclass(frozen=True, slots=True)
class BtfType:
    """One type. `size_or_type` is a size in bytes or a type id; that depends on the kind."""

    btf: Btf
    id: int
    kind: Kind
    name: str
    vlen: int
    kflag: bool
    size_or_type: int
    extra: int  # offset of the kind's own data

    @property
    def size(self) -> int:
        """The size in bytes of an INT, ENUM, STRUCT, UNION, FLOAT or DATASEC."""
        return self.size_or_type

    @property
    def target(self) -> BtfType:
        """The type that a pointer, modifier, typedef or variable refers to."""
        return self.btf.type(self.size_or_type)

    def int_encoding(self) -> tuple[int, int, int]:
        """Returns the encoding flags, the offset in bits and the size in bits of an INT."""
        (word,) = self.btf.unpack("=I", self.extra)
        return (word >> 24) & 0x0F, (word >> 16) & 0xFF, word & 0xFF

    def array(self) -> tuple[int, int]:
        """Returns the type id and the number of the elements of an ARRAY."""
        element, _index, count = self.btf.unpack("=III", self.extra)
        return element, count

    def members(self) -> list[Member]:
        """Returns the fields of a STRUCT or UNION."""
        made = []
        for name, type_id, offset in self.btf.unpack_many("=III", self.extra, self.vlen):
            bits = (offset >> 24, offset & 0xFFFFFF) if self.kflag else (0, offset)
            made.append(Member(self.btf.string(name), type_id, bits[1], bits[0]))
        return made

    def enumerators(self) -> list[tuple[str, int]]:
        """Returns the names and values of an ENUM or ENUM64, in order."""
        if self.kind is Kind.ENUM64:
            values = self.btf.unpack_many("=III", self.extra, self.vlen)
            wide = [(name, high << 32 | low) for name, low, high in values]
            bits = 64
        else:
            wide = [(name, value) for name, value in self.btf.unpack_many("=II", self.extra, self.vlen)]
            bits = 32
        # clang before 16 does not record the sign. From its objects, -1 must not be read as 2**32-1.
        # `has_enum_signs` comes last: it may read every type, and a kernel has 100,000.
        signed = self.kflag or (
            bits == 32 and self.btf.legacy_enum_sign(wide) and not self.btf.has_enum_signs
        )
        return [(self.btf.string(n), v - (1 << bits) if signed and v >> (bits - 1) else v) for n, v in wide]

    @property
    def is_truncated_enum(self) -> bool:
        """Whether BTF has only the lower half of the enum's values."""
        return self.kind is Kind.ENUM and self.size == 8

    def component(self) -> int:
        """Returns the number of the member or argument that a DECL_TAG is for; -1 for the whole type."""
        return self.btf.unpack("=i", self.extra)[0]

    def parameters(self) -> list[int]:
        """Returns the type ids of a FUNC_PROTO's parameters."""
        return [type_id for _, type_id in self.btf.unpack_many("=II", self.extra, self.vlen)]

    def variables(self) -> list[Variable]:
        """Returns the variables of a DATASEC."""
        made = []
        for type_id, offset, size in self.btf.unpack_many("=III", self.extra, self.vlen):
            var = self.btf.type(type_id)
            (linkage,) = self.btf.unpack("=I", var.extra)
            made.append(Variable(var.name, var.size_or_type, offset, size, linkage == _STATIC))
        return made


class Btf:
    """The types of one ``.BTF`` section. Type 0 is void.

    Raises `LoadError` for bytes that are not BTF, and for BTF of the other byte order.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._types: dict[int, BtfType] = {}
        header_len, type_off, type_len, str_off, str_len = self._header()
        self._strings = header_len + str_off
        self._strings_end = self._strings + str_len
        self.strings_size = str_len
        self._types_end = header_len + type_off + type_len
        self._kinds = bytearray(b"\0")  # by type id
        self._offsets = self._index(header_len + type_off, type_len)

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[BtfType]:
        return (self.type(i) for i in range(1, len(self._offsets)))

    def type(self, type_id: int) -> BtfType:
        """Returns the type with that id."""
        found = self._types.get(type_id)
        if found is None:
            found = self._types[type_id] = self._read(type_id)
        return found

    def resolve(self, type_id: int) -> BtfType:
        """Returns the type without typedefs, const, volatile, restrict and type tags."""
        found = self.type(type_id)
        for _ in range(64):
            if found.kind not in MODIFIERS:
                return found
            found = found.target
        raise _malformed(f"type {type_id} is a chain of more than 64 typedefs and qualifiers")

    def find(self, name: str, *kinds: Kind) -> BtfType | None:
        """Returns the first type of that name and one of those kinds, or None."""
        among = self.of_kind(*kinds) if kinds else self
        return next((found for found in among if found.name == name), None)

    def of_kind(self, *kinds: Kind) -> Iterator[BtfType]:
        """Yields the types of those kinds, in order, without reading the others."""
        wanted = set(kinds)
        return (self.type(i) for i, kind in enumerate(self._kinds) if kind in wanted)

    def records(self) -> Iterator[bytes]:
        """Yields the bytes of each type, from type 1 on."""
        places = [*self._offsets[1:], self._types_end]
        return (self._raw[at:end] for at, end in pairwise(places))

    def strings(self) -> bytes:
        """Returns the string section. It is shorter than `strings_size` when the data ends too early."""
        return self._raw[self._strings : self._strings_end]

    def string(self, offset: int) -> str:
        """Returns the string at that offset of the string section."""
        start = self._strings + offset
        end = self._raw.find(b"\0", start, self._strings_end)
        if start >= self._strings_end or end < 0:
            raise _malformed(f"string offset {offset} is outside the string section")
        return self._raw[start:end].decode(errors="replace")

    def unpack(self, format: str, offset: int) -> tuple[int, ...]:
        """Calls `struct.unpack_from`. Raises `LoadError` past the end."""
        try:
            return struct.unpack_from(format, self._raw, offset)
        except struct.error as e:
            raise _malformed("it ends in the middle of a type") from e

    def unpack_many(self, format: str, offset: int, count: int) -> Iterator[tuple[int, ...]]:
        """Yields `count` records that follow each other."""
        size = struct.calcsize(format) * count
        if offset + size > len(self._raw):
            raise _malformed("it ends in the middle of a type")
        return struct.iter_unpack(format, self._raw[offset : offset + size])

    @cached_property
    def datasecs(self) -> dict[str, BtfType]:
        """The data sections, by name."""
        return {t.name: t for t in self.of_kind(Kind.DATASEC)}

    @cached_property
    def has_enum_signs(self) -> bool:
        """Whether an enum shows that the compiler records signs. An unset flag then means unsigned."""
        return Kind.ENUM64 in self._kinds or any(t.kflag for t in self.of_kind(Kind.ENUM))

    @cached_property
    def has_truncated_enums(self) -> bool:
        """Whether a 64-bit enum has 32-bit values: clang before 15 does not know BTF_KIND_ENUM64."""
        return any(t.is_truncated_enum for t in self.of_kind(Kind.ENUM))

    @staticmethod
    def legacy_enum_sign(values: Sequence[tuple[int, ...]]) -> bool:
        """Returns whether a 32-bit enum without sign information looks signed: its negative values are
        small.
        """
        return any(v >> 31 for _, v in values) and all(v < 1 << 30 or v > 0xFFFF0000 for _, v in values)

    def _header(self) -> tuple[int, int, int, int, int]:
        if len(self._raw) < _HEADER.size:
            raise _malformed(f"{len(self._raw)} bytes are too few for a header")
        magic, _version, _flags, *parts = _HEADER.unpack_from(self._raw)
        if magic == int.from_bytes(_MAGIC.to_bytes(2, "big"), "little"):
            other = "big" if sys.byteorder == "little" else "little"
            raise LoadError(
                "cannot read BTF",
                why=f"the object is {other}-endian, and this machine is {sys.byteorder}-endian",
                fix="compile the object for this machine ('-target bpf' takes the host's byte order)",
            )
        if magic != _MAGIC:
            raise _malformed(f"the magic number is {magic:#x}, not {_MAGIC:#x}")
        return tuple(parts)

    def _index(self, start: int, length: int) -> list[int]:
        """Returns the offsets of all types. It walks over the section, because types have no fixed size."""
        end = start + length
        if end > len(self._raw):
            raise _malformed("the type section is longer than the data")
        offsets = [-1]
        raw, kinds, unpack = self._raw, self._kinds, _TYPE.unpack_from
        while start + 12 <= end:
            offsets.append(start)
            info = unpack(raw, start)[1]
            kind = (info >> 24) & 0x1F
            fixed, each = _SIZES.get(kind, (-1, 0))
            if fixed < 0:
                raise _malformed(f"type {len(offsets) - 1} has the unknown kind {kind}")
            kinds.append(kind)
            start += 12 + fixed + each * (info & 0xFFFF)
        return offsets

    def _read(self, type_id: int) -> BtfType:
        if type_id == 0:
            return BtfType(self, 0, Kind.VOID, "void", 0, False, 0, 0)
        if not 0 < type_id < len(self._offsets):
            raise _malformed(f"there is no type {type_id}")
        offset = self._offsets[type_id]
        name, info, size_or_type = _TYPE.unpack_from(self._raw, offset)
        kind = _KINDS[(info >> 24) & 0x1F]
        return BtfType(
            self, type_id, kind, self.string(name), info & 0xFFFF, bool(info >> 31), size_or_type, offset + 12
        )


# the number of bytes after the common 12: per type, and per element
_SIZES: dict[int, tuple[int, int]] = {int(k): (0, 0) for k in Kind if k is not Kind.VOID}
_SIZES |= {Kind.INT: (4, 0), Kind.ARRAY: (12, 0), Kind.VAR: (4, 0), Kind.DECL_TAG: (4, 0)}
_SIZES |= {Kind.STRUCT: (0, 12), Kind.UNION: (0, 12), Kind.ENUM: (0, 8), Kind.ENUM64: (0, 12)}
_SIZES |= {Kind.FUNC_PROTO: (0, 8), Kind.DATASEC: (0, 12)}


def _malformed(why: str) -> BpfError:
    return LoadError("cannot read BTF", why=why, fix="compile the object again with 'clang -g -target bpf'")
