"""Makes the codec for a BTF type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

from pytest_bpfmaps.btf.array_codecs import ArrayCodec, BytesCodec, TextCodec
from pytest_bpfmaps.btf.codec import BoolCodec, Codec, FloatCodec, IntCodec, WideIntCodec
from pytest_bpfmaps.btf.enums import BitfieldCodec, EnumCodec
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.btf.flexible_arrays import FlexibleArrayCodec
from pytest_bpfmaps.btf.ip_addresses import NETWORK_ORDER, AddressCodec
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.btf.special_fields import is_kernel_field
from pytest_bpfmaps.btf.types import MODIFIERS, Btf, BtfType, Kind, Member
from pytest_bpfmaps.errors import NameLookupError, UnsupportedError, closest

Choice = tuple[tuple[int, int], ...]
_SIGNED, _CHAR, _BOOL = 1, 2, 4
_LOWER_HALF = 0xFFFFFFFF
_STRUCTS = (Kind.STRUCT, Kind.UNION, Kind.TYPEDEF)
_POINTER_SIZE = 8  # BPF pointers have 8 bytes on every host


class Codecs:
    """Codecs for the types of one BTF. Each is made once.

    `more` returns the codecs of a BTF with structs that this one lacks. `prefer` returns the struct that a
    name means, when that is not the first struct of that name. With `all_data` no field is the kernel's own.
    """

    def __init__(
        self,
        btf: Btf,
        more: Callable[[], Codecs | None] = lambda: None,
        *,
        prefer: Callable[[str], StructCodec | None] = lambda name: None,
        all_data: bool = False,
    ) -> None:
        self.btf = btf
        self._made: dict[int, Codec] = {}
        self._more = more
        self._prefer = prefer
        self._all_data = all_data

    def with_more(self, more: Callable[[], Codecs | None]) -> Codecs:
        """Returns the same codecs. `more` is called for a struct that this BTF lacks."""
        extended = Codecs(self.btf, cache(more), all_data=self._all_data)
        if not self.btf.has_truncated_enums:  # their names are another object's own
            extended._made = self._made
        return extended

    def as_data(self) -> Codecs:
        """Returns codecs for a map without types in the kernel, which keeps no field of it for itself."""
        return Codecs(self.btf, self._more, prefer=self._prefer, all_data=True)

    def preferring(self, prefer: Callable[[str], StructCodec | None]) -> Codecs:
        """Returns the same codecs, but with the structs that `prefer` returns for a name."""
        preferring = Codecs(self.btf, self._more, prefer=prefer, all_data=self._all_data)
        preferring._made = self._made
        return preferring

    def get(self, type_id: int) -> Codec:
        """Returns the codec for a type id. Raises `UnsupportedError` for a type that holds no data."""
        made = self._made.get(type_id)
        if made is None:
            made = self._made[type_id] = self._make(self.btf.type(type_id))
        return made

    def struct(self, name: str) -> StructCodec:
        """Returns the codec of the struct or union with that name, or of a typedef for one.

        Raises `NameLookupError` with the closest names.
        """
        name = name.removeprefix("struct ").removeprefix("union ")
        more = None
        found = self._prefer(name) or self.find_struct(name)
        if found is None:
            more = self._more()
            found = more.find_struct(name) if more else None
        if found is not None:
            return found
        raise NameLookupError(
            "no struct",
            on=f"{name!r} in the object",
            why="clang keeps the types of maps, global variables and local variables only",
            fix=closest(name, {*self.struct_names(), *(more.struct_names() if more else ())}),
        )

    def find_struct(self, name: str) -> StructCodec | None:
        """Returns the first struct or union with that name, or typedef for one."""
        for found in self.btf.of_kind(*_STRUCTS):
            if found.name == name:
                codec = self.get(found.id)
                if isinstance(codec, StructCodec):
                    return codec
        return None

    def struct_names(self) -> list[str]:
        """Returns the names of all structs and unions, and of the typedefs for one."""
        structs = (t for t in self.btf.of_kind(*_STRUCTS) if t.name)
        return [t.name for t in structs if self.btf.resolve(t.id).kind in _STRUCTS]

    def all_struct_names(self) -> list[str]:
        """Returns `struct_names`, with those that only the debugging information has."""
        more = self._more()
        return [*self.struct_names(), *(more.struct_names() if more else [])]

    def _make(self, btf_type: BtfType) -> Codec:
        target = self.btf.resolve(btf_type.id)
        name = type_name(btf_type)
        match target.kind:
            case Kind.INT:
                is_address = target.size == 4 and not NETWORK_ORDER.isdisjoint(self._aliases(btf_type))
                return AddressCodec(name, 4, signed=False) if is_address else self._int(target, name)
            case Kind.PTR:
                return IntCodec(name, _POINTER_SIZE, signed=False)
            case Kind.ENUM | Kind.ENUM64:
                return self._enum(target, name)
            case Kind.FLOAT if target.size in (2, 4, 8):
                return FloatCodec(name, target.size)
            case Kind.FLOAT:  # "long double" has no Python type
                return BytesCodec(name, target.size)
            case Kind.ARRAY:
                return self._array(target, name)
            case Kind.STRUCT | Kind.UNION:
                return self._struct(target, name)
            case Kind.DATASEC:
                shown = [v for v in target.variables() if not self._is_hidden(v.type_id)]
                fields = [Field(v.name, self.get(v.type_id), v.offset) for v in shown]
                whole = [f for v, f in zip(shown, fields, strict=True) if not v.is_part_of(f.codec.size)]
                return StructCodec(name, target.size, whole)
            case _:
                raise UnsupportedError("cannot read values", on=f"of type {name}", why="it holds no data")

    def _int(self, target: BtfType, name: str) -> Codec:
        encoding, _offset, _bits = target.int_encoding()
        signed = bool(encoding & _SIGNED)
        if target.size not in (1, 2, 4, 8):
            return WideIntCodec(name, target.size, signed)
        return BoolCodec(name, target.size) if encoding & _BOOL else IntCodec(name, target.size, signed)

    def _aliases(self, btf_type: BtfType) -> Iterator[str]:
        """Yields the names of the typedefs that a type is made of."""
        for _ in range(64):
            if btf_type.kind not in MODIFIERS:
                return
            yield btf_type.name
            btf_type = btf_type.target

    def _enum(self, target: BtfType, name: str) -> EnumCodec:
        values = target.enumerators()
        signed = target.kflag or any(v < 0 for _, v in values)
        if target.is_truncated_enum:
            whole = self._whole_enum(values)
            signed = signed if whole is None else any(v < 0 for _, v in whole)
            values = whole or []  # a number without a name is better than a wrong name
        return EnumCodec(name, target.size, signed, values)

    def _whole_enum(self, values: list[tuple[str, int]]) -> list[tuple[str, int]] | None:
        """Returns the whole values of a 64-bit enum from DWARF, because BTF has only their lower halves.

        Returns None when DWARF has no such enum, or several different ones.
        """
        more = self._more()
        wanted = [(name, value & _LOWER_HALF) for name, value in values]
        found: list[list[tuple[str, int]]] = []
        for each in more.btf if more else ():
            if each.kind is Kind.ENUM64:
                whole = each.enumerators()
                if [(name, value & _LOWER_HALF) for name, value in whole] == wanted and whole not in found:
                    found.append(whole)
        return found[0] if len(found) == 1 else None

    def _array(self, target: BtfType, name: str) -> Codec:
        element_id, count = target.array()
        element_type = self.btf.resolve(element_id)
        if element_type.kind is Kind.INT and element_type.size == 1:
            encoding = element_type.int_encoding()[0]
            if element_type.name == "char" or encoding & _CHAR:
                return TextCodec(name, count)
            if not encoding & (_BOOL | _SIGNED):
                return BytesCodec(name, count, filled=True)
        return ArrayCodec(name, self.get(element_id), count)

    def _struct(self, target: BtfType, name: str) -> StructCodec:
        hidden = frozenset(m.name for m in target.members() if self._is_hidden(m.type_id))
        return StructCodec(name, target.size, self._with_tail(self._fields(target, 0, ())), hidden)

    def _is_hidden(self, type_id: int) -> bool:
        return not self._all_data and is_kernel_field(self.btf, type_id)

    def _with_tail(self, fields: list[Field]) -> list[Field]:
        """Makes the last field a tail when it is an empty array, or a struct that ends in one.

        A tail takes the rest of a record. No field with a size may follow it.
        """
        end = max((f.offset + f.codec.size for f in fields if f.codec.size), default=0)
        return [self._tail(f) if f.offset + f.codec.size >= end else f for f in fields]

    def _tail(self, field: Field) -> Field:
        codec = field.codec
        if isinstance(codec, ArrayCodec | TextCodec | BytesCodec) and not codec.size:
            element = codec.element if isinstance(codec, ArrayCodec) else IntCodec("char", 1, signed=False)
            if element.size:
                codec = FlexibleArrayCodec(codec.name.replace("[0]", "[]", 1), codec, element)
        return replace(field, codec=codec, tail=True) if codec.flexible else field

    def _fields(self, target: BtfType, base: int, choice: Choice) -> list[Field]:
        """Returns the named fields of a struct, with the fields of its anonymous members."""
        made: list[Field] = []
        union = base * 100_000 + target.id  # any number that tells this union from its neighbours
        for at, member in enumerate(target.members()):
            resolved = self.btf.resolve(member.type_id)
            if self._is_hidden(member.type_id):
                continue
            inside = (*choice, (union, at)) if target.kind is Kind.UNION else choice
            if not member.name and resolved.kind in (Kind.STRUCT, Kind.UNION):
                made += self._fields(resolved, base + member.bit_offset // 8, inside)
            elif member.name:
                made.append(self._field(member, base, inside))
        return made

    def _field(self, member: Member, base: int, choice: Choice) -> Field:
        codec = self.get(member.type_id)
        bits, offset = member.bit_size, member.bit_offset
        target = self.btf.resolve(member.type_id)
        if not bits and target.kind is Kind.INT:
            # bitfields of old compilers: the INT itself is narrower than its size
            _, int_offset, int_bits = target.int_encoding()
            if int_bits != target.size * 8:
                bits, offset = int_bits, offset + int_offset
        if not bits:
            return Field(member.name, codec, base + offset // 8, choice)
        return Field(member.name, BitfieldCodec(codec, offset % 8, bits), base + offset // 8, choice)


def type_name(btf_type: BtfType) -> str:
    """Returns a type as C writes it: ``struct event``, ``char[16]``, ``const __u32``."""
    match btf_type.kind:
        case Kind.STRUCT | Kind.UNION | Kind.ENUM | Kind.FWD | Kind.ENUM64:
            word = {Kind.STRUCT: "struct", Kind.UNION: "union", Kind.FWD: "struct"}.get(btf_type.kind, "enum")
            return f"{word} {btf_type.name}".rstrip()
        case Kind.ARRAY:
            dimensions, element = "", btf_type
            while element.kind is Kind.ARRAY:
                element_id, count = element.array()
                dimensions += f"[{count}]"
                element = element.btf.type(element_id)
            return type_name(element) + dimensions
        case Kind.CONST | Kind.VOLATILE | Kind.RESTRICT:
            return f"{btf_type.kind.name.lower()} {type_name(btf_type.target)}"
        case Kind.TYPE_TAG:
            return type_name(btf_type.target)
        case Kind.PTR:
            return f"{type_name(btf_type.target)} *"
        case _:
            return btf_type.name
