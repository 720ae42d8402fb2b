"""Writes a ``.BTF`` section. It has only the kinds of types that describe data."""

from __future__ import annotations

import struct

from pytest_bpfmaps.btf.section import StringTable, to_section
from pytest_bpfmaps.btf.types import Kind, Member


class BtfWriter:
    """Collects types. Each `add_…` returns the new type's id. `to_bytes` returns the section."""

    def __init__(self) -> None:
        self._types = bytearray()
        self._strings = StringTable()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_int(self, name: str, size: int, encoding: int) -> int:
        """Adds an integer of `size` bytes. Encoding flags: 1 signed, 2 char, 4 bool."""
        return self._add(name, Kind.INT, size, struct.pack("=I", encoding << 24 | size * 8))

    def add_float(self, name: str, size: int) -> int:
        """Adds a floating point number of `size` bytes."""
        return self._add(name, Kind.FLOAT, size)

    def add_reference(self, kind: Kind, name: str, target: int) -> int:
        """Adds a pointer, typedef, const or volatile."""
        return self._add(name, kind, target)

    def add_array(self, element: int, count: int) -> int:
        """Adds an array of `count` values of the type `element`."""
        return self._add("", Kind.ARRAY, 0, struct.pack("=III", element, 0, count))

    def add_struct(self, kind: Kind, name: str, size: int, members: list[Member]) -> int:
        """Adds a struct or union of `size` bytes."""
        extra = b"".join(
            struct.pack("=III", self._strings.offset(m.name), m.type_id, m.bit_size << 24 | m.bit_offset)
            for m in members
        )
        return self._add(name, kind, size, extra, len(members), kflag=True)

    def add_enum(self, name: str, size: int, values: list[tuple[str, int]]) -> int:
        """Adds an enum of `size` bytes."""
        signed = any(v < 0 for _, v in values)
        if size == 8:
            extra = b"".join(
                struct.pack("=III", self._strings.offset(n), v & 0xFFFFFFFF, v >> 32 & 0xFFFFFFFF)
                for n, v in values
            )
            return self._add(name, Kind.ENUM64, size, extra, len(values), kflag=signed)
        extra = b"".join(struct.pack("=II", self._strings.offset(n), v & 0xFFFFFFFF) for n, v in values)
        return self._add(name, Kind.ENUM, size, extra, len(values), kflag=signed)

    def to_bytes(self) -> bytes:
        """Returns the whole section in this machine's byte order."""
        return to_section(bytes(self._types), self._strings)

    def _add(
        self, name: str, kind: Kind, size: int, extra: bytes = b"", count: int = 0, *, kflag: bool = False
    ) -> int:
        info = kflag << 31 | kind << 24 | count
        self._types += struct.pack("=III", self._strings.offset(name), info, size) + extra
        self._count += 1
        return self._count
