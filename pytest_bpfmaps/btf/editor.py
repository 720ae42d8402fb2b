"""Changes a ``.BTF`` section: replaces types in place or adds them at the end, so all ids stay the same."""

from __future__ import annotations

import struct

from pytest_bpfmaps.btf.section import StringTable, to_section
from pytest_bpfmaps.btf.types import Btf, Kind

VAR_STATIC, VAR_GLOBAL = 0, 1
_UNSIGNED = 0


class BtfEditor:
    """The types of a BTF section; without `raw` there are none. `to_bytes` returns the changed section.

    Raises `LoadError` for bytes that are not BTF of this machine's byte order.
    """

    def __init__(self, raw: bytes | None = None) -> None:
        self.btf = Btf(raw) if raw else None
        self._records = list(self.btf.records()) if self.btf else []
        self._strings = StringTable(self.btf.strings()) if self.btf else StringTable()
        self._ints: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._records)

    def add_int(self, name: str, size: int) -> int:
        """Adds an unsigned integer of `size` bytes. The same name and size are added once."""
        made = self._ints.get((name, size))
        if made is None:
            made = self._add(self._record(name, Kind.INT, 0, size, struct.pack("=I", _UNSIGNED | size * 8)))
            self._ints[name, size] = made
        return made

    def add_pointer(self, target: int) -> int:
        """Adds a pointer to the type `target`."""
        return self._add(self._record("", Kind.PTR, 0, target))

    def add_array(self, element: int, index: int, count: int) -> int:
        """Adds an array of `count` values of the type `element`. `index` is the type of its indices."""
        return self._add(self._record("", Kind.ARRAY, 0, 0, struct.pack("=III", element, index, count)))

    def add_struct(self, size: int, members: list[tuple[str, int, int]]) -> int:
        """Adds an anonymous struct. Members are (name, type id, offset in bytes)."""
        extra = b"".join(struct.pack("=III", self._strings.offset(n), t, at * 8) for n, t, at in members)
        return self._add(self._record("", Kind.STRUCT, len(members), size, extra))

    def add_variable(self, name: str, type_id: int) -> int:
        """Adds a global variable."""
        return self._add(self._record(name, Kind.VAR, 0, type_id, struct.pack("=I", VAR_GLOBAL)))

    def add_datasec(self, name: str, size: int, variables: list[tuple[int, int, int]]) -> int:
        """Adds an ELF section. Its variables are (type id of the VAR, offset, size), in bytes."""
        extra = b"".join(struct.pack("=III", *v) for v in sorted(variables, key=lambda v: v[1]))
        return self._add(self._record(name, Kind.DATASEC, len(variables), size, extra))

    def drop_members(self, type_id: int, names: set[str]) -> None:
        """Removes members of a struct. Its size and the offsets of the other members stay the same."""
        assert self.btf is not None
        record = self._records[type_id - 1]
        kept = [m for m in struct.iter_unpack("=III", record[12:]) if self.btf.string(m[0]) not in names]
        name, info, size = struct.unpack_from("=III", record)
        head = struct.pack("=III", name, info & ~0xFFFF | len(kept), size)
        self._records[type_id - 1] = head + b"".join(struct.pack("=III", *m) for m in kept)

    def move_variables(self, type_id: int, offsets: dict[int, int]) -> None:
        """Gives variables of a DATASEC, by their numbers in it, other offsets in bytes, and sorts all."""
        record = self._records[type_id - 1]
        variables = list(struct.iter_unpack("=III", record[12:]))
        for i, at in offsets.items():
            variables[i] = (variables[i][0], at, variables[i][2])
        variables.sort(key=lambda v: v[1])
        self._records[type_id - 1] = record[:12] + b"".join(struct.pack("=III", *v) for v in variables)

    def drop(self, type_id: int) -> None:
        """Replaces a type that nothing refers to any more with ``void *``."""
        self._records[type_id - 1] = self._record("", Kind.PTR, 0, 0)

    def to_bytes(self) -> bytes:
        """Returns the changed section."""
        return to_section(b"".join(self._records), self._strings)

    def _add(self, record: bytes) -> int:
        self._records.append(record)
        return len(self._records)

    def _record(self, name: str, kind: Kind, count: int, size: int, extra: bytes = b"") -> bytes:
        return struct.pack("=III", self._strings.offset(name), kind << 24 | count, size) + extra
