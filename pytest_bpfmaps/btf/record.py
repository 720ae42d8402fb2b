"""Structs and unions as immutable values, which decode a field when it is read.

Each C struct gets its own subclass of `Record`. So a field is an attribute, a typo is an error with the
closest names, and a record costs only its bytes until somebody reads a field.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import repeat
from typing import Any, ClassVar

from pytest_bpfmaps.btf.codec import Buffer, Codec, FloatCodec, IntCodec, short, wrong_type
from pytest_bpfmaps.btf.comparison import same_field
from pytest_bpfmaps.btf.enumerator import equal_with_hash
from pytest_bpfmaps.btf.field import Field, arrange, first_alternatives, needed, positions, suffice
from pytest_bpfmaps.btf.ip_addresses import is_address, packed_address
from pytest_bpfmaps.btf.listed_keys import Listed, odd_note
from pytest_bpfmaps.btf.unions import Member, write_members
from pytest_bpfmaps.errors import MapTypeError, MapValueError, NameLookupError, closest


class _NotThere:
    """Takes the place of the value that a field does not have, in comparisons and in printed records."""

    def __repr__(self) -> str:
        return "<not there>"


NOT_THERE = _NotThere()


class Record:
    """A struct or union read from the kernel.

    Fields are attributes (``r.pid``) and items (``r["from"]``, for names that Python reserves). A record is
    immutable and hashable, and prints like a `dict`. It equals a record or a mapping with the same fields and
    values, and a tuple of its values in order. The values may have every form that can be written.

    For a union, a mapping may name all fields of one alternative only. A tuple has the fields of the first
    alternative, or of all alternatives when the first does not cover all bytes.

    Reading a field raises `NoValueError` when the field was not sent, or when the kernel does not return it.
    Comparisons and `_asdict` use the other fields.
    """

    __slots__ = ("__data__", "__offset__")
    __codec__: ClassVar[StructCodec]
    __fixed__: ClassVar[bool] = False  # True: the bytes after the struct do not belong to it
    __data__: Buffer
    __offset__: int

    def __init__(self, data: Buffer, offset: int = 0) -> None:
        _set_data(self, data)
        _set_offset(self, offset)

    def __setattr__(self, name: str, value: Any = None) -> None:
        raise AttributeError(
            f"cannot set .{name}: a record is an immutable copy; write a whole value to the map instead: "
            f"fields = record._asdict(); fields[{name!r}] = …; m[key] = fields "
            "(a global variable: obj.globals.name = fields)"
        )

    __delattr__ = __setitem__ = __delitem__ = __setattr__

    def __getattr__(self, name: str) -> Any:
        # Python calls this only for names that are no field
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        codec = self.__codec__
        raise NameLookupError(
            "no field", on=f"{name!r} in {codec.name}", fix=closest(name, (f.name for f in codec.fields))
        )

    def __getitem__(self, name: str) -> Any:
        field = self.__codec__.by_name.get(name)
        if field is None:
            return self.__getattr__(name)
        return field.decode(self.__data__, self.__offset__, rest=not self.__fixed__)

    def __iter__(self) -> Iterator[Any]:
        """Yields the values in field order, so that a record unpacks like a tuple."""
        return (self[f.name] for f in self.__codec__.positions)

    def __len__(self) -> int:
        return len(self.__codec__.positions)

    def __bytes__(self) -> bytes:
        end = (
            None if self.__codec__.flexible and not self.__fixed__ else self.__offset__ + self.__codec__.size
        )
        return bytes(self.__data__[self.__offset__ : end])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            if isinstance(self, Listed) or isinstance(other, Listed):
                both = isinstance(self, Listed) and isinstance(other, Listed)
                return both and self.__codec__.name == other.__codec__.name and bytes(self) == bytes(other)
            if type(self) is type(other) and bytes(self) == bytes(other):
                return True
            names, codec = self.__codec__.by_name.keys(), other.__codec__
            return (
                names == codec.by_name.keys()
                and [f.name for f in self.__codec__.positions] == [f.name for f in codec.positions]
                and all(self.__peek__(n) == other.__peek__(n) for n in names)
            )
        if isinstance(self, Listed) and isinstance(other, Mapping | tuple):
            return False
        if isinstance(other, Mapping):
            codec = self.__codec__
            return codec.names_match(other) and all(
                same_field(self, codec.by_name[n], self.__peek__(n), v) for n, v in other.items()
            )
        if isinstance(other, tuple):
            there = self.__there__()
            return len(other) == len(there) and all(map(equal_with_hash, there, other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__there__()))

    def __there__(self) -> list[Any]:
        """Returns the values of the fields that have a value and a place in a tuple."""
        return [self[f.name] for f in self.__codec__.positions if not f.codec.absent]

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{f.name!r}: {self.__peek__(f.name)!r}" for f in self.__codec__.fields) + "}"

    def _asdict(self) -> dict[str, Any]:
        """Returns a new dict of the fields that have values. Nested records become dicts, too.

        A namedtuple has a method of this name.
        """
        return {f.name: _plain(self[f.name]) for f in self.__codec__.fields if not f.codec.absent}

    def __peek__(self, name: str) -> Any:
        """Returns a field's value, or `NOT_THERE`."""
        field = self.__codec__.by_name.get(name)
        return NOT_THERE if field is not None and field.codec.absent else self[name]

    def __copy__(self) -> Record:
        return self

    def __deepcopy__(self, memo: Any) -> Record:
        return self


# Fields with these names can be read as items only: Python and this class use the names.
_RESERVED = {n for n in dir(Record) if n.startswith("__")}
_RESERVED |= {"__raw__", "__note__", "__dict__", "__weakref__"}
# these set the slots without __setattr__, which refuses
_set_data = Record.__dict__["__data__"].__set__
_set_offset = Record.__dict__["__offset__"].__set__


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return Record._asdict(value)  # not value._asdict: a field may have that name
    return [_plain(v) for v in value] if isinstance(value, list) else value


class StructCodec(Codec):
    """A struct or union. The value is a `Record`.

    Takes a mapping, a record, or a tuple or list with a value for each field in order. In a mapping missing
    fields are zero, and unknown ones are an error. Members of a union must agree on the bytes that they
    share. `hidden` has the names of fields that the kernel keeps for itself.
    """

    def __init__(
        self, name: str, size: int, fields: list[Field], hidden: frozenset[str] = frozenset()
    ) -> None:
        self.name = name
        self.size = size
        self.fields = fields
        self.hidden = hidden
        self.by_name = {f.name: f for f in fields}
        self.flexible = any(f.tail for f in fields)
        self._items = arrange(fields)
        self._has_unions = any(f.choice for f in fields)
        self.type = self._make_type(fixed=False)
        self._fixed_type = self._make_type(fixed=True) if self.flexible else self.type

    @cached_property
    def positions(self) -> list[Field]:
        """The fields that have a place in a tuple."""
        return positions(self._items) if self._has_unions else self.fields

    @cached_property
    def layout(self) -> tuple[object, ...]:
        """Its size and its fields, with all that is in them. Equal layouts give equal values."""
        return self.size, tuple((f.name, f.offset, _layout(f.codec)) for f in self.by_name.values())

    @cached_property
    def exact(self) -> bool:
        return self.bits(exact=True) == (1 << self.size * 8) - 1

    def bits(self, *, exact: bool = False) -> int:
        found = 0
        for field in self.fields:
            found |= field.codec.bits(exact=exact) << field.offset * 8
        return found

    def says(self, data: Buffer, offset: int, strength: int) -> int:
        found = 0
        for field in self.fields:
            found |= field.codec.says(data, offset + field.offset, strength) << field.offset * 8
        return found

    def shown_bits(self, data: Buffer, offset: int = 0) -> int:
        found, varying = self._shown
        for field in varying:
            found |= field.codec.shown_bits(data, offset + field.offset) << field.offset * 8
        return found

    @cached_property
    def _shown(self) -> tuple[int, list[Field]]:
        """The bits that each value shows, and the fields whose bits depend on the value."""
        always = 0
        for field in self.fields:
            if field.codec.exact:
                always |= field.bits
        return always, [f for f in self.fields if not f.codec.exact]

    @cached_property
    def listed_type(self) -> type[Record]:
        """The type of listed keys; see `Listed`."""
        body = {
            "__slots__": (),
            "__raw__": property(Record.__bytes__),
            "__note__": property(lambda key: odd_note(key.__raw__, self.odd_bits(key.__raw__))),
            "__hash__": lambda key: hash(key.__raw__),
            "__repr__": lambda key: Record.__repr__(key) + key.__note__,
        }
        return type(self.type.__name__, (self._fixed_type, Listed), body)

    def clean(self, raw: bytes) -> bytes:
        number = int.from_bytes(raw, "little") & self.shown_bits(raw)
        for field in self._shown[1]:
            if not field.choice:
                own = field.codec.clean(raw[field.offset : field.offset + field.codec.size])
                number = number & ~field.bits | int.from_bytes(own, "little") << field.offset * 8
        return number.to_bytes(len(raw), "little")

    def listed(self, raw: bytes) -> Any:
        return self.listed_type(raw) if self.odd_bits(raw) else self.decode(raw)

    def listed_all(self, data: Buffer) -> list[Any]:
        if self.exact or not self.size or self._have_no_odd_bytes(data):
            return self.decode_all(data)
        return super().listed_all(data)

    def _have_no_odd_bytes(self, data: Buffer) -> bool:
        """Returns whether all records are certain to be zero where they have no field."""
        always, varying = self._shown
        mask = always.to_bytes(self.size, "little")
        if varying or not {*mask} <= {0, 0xFF}:
            return False
        return not any(bytes(data[at :: self.size]).strip(b"\0") for at, byte in enumerate(mask) if not byte)

    def _make_type(self, *, fixed: bool) -> type[Record]:
        attributes: dict[str, Any] = {"__slots__": (), "__codec__": self, "__fixed__": fixed}
        for field in self.fields:
            if field.name not in _RESERVED:
                attributes[field.name] = property(_reader(field, fixed))
        return type(self.name.removeprefix("struct ").removeprefix("union "), (Record,), attributes)

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return self._fixed_type(data, offset)

    def decode_rest(self, data: Buffer, offset: int = 0) -> Any:
        return self.type(bytes(data[offset:])) if self.flexible else self.type(data, offset)

    def decode_each(self, data: Buffer, offset: int, step: int, count: int) -> list[Any]:
        places = range(offset, offset + count * step, step) if step else repeat(offset, count)
        # this does what Record.__init__ does, but calls no Python code for each: three times as fast
        made = list(map(object.__new__, repeat(self._fixed_type, count)))
        deque(map(_set_data, made, repeat(data)), maxlen=0)
        deque(map(_set_offset, made, places), maxlen=0)
        return made

    def names_match(self, other: Mapping[Any, Any]) -> bool:
        """Returns whether a mapping names all fields, and for each union all fields of one alternative."""
        names = other.keys()
        return all(n in self.by_name for n in names) and suffice(self._items_there, names)

    @cached_property
    def _items_there(self) -> list[Any]:
        there = [f for f in self.fields if not f.codec.absent]
        return self._items if len(there) == len(self.fields) else arrange(there)

    def names_lacking(self, other: Mapping[Any, Any]) -> list[str]:
        """Returns the names of the fields that a mapping lacks for `names_match`."""
        return [f.name for f in needed(self._items_there, other.keys())]

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        self._encode(out, offset, value, where, rest=False)

    def encode_rest(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        self._encode(out, offset, value, where, rest=True)

    def _encode(self, out: bytearray, offset: int, value: Any, where: str, *, rest: bool) -> None:
        if isinstance(value, Record):
            raw = bytes(value)
            is_whole = len(raw) == self.size or (rest and self.flexible and len(raw) > self.size)
            if is_whole and value.__codec__.size == self.size and value.__codec__.name == self.name:
                out[offset : offset + len(raw)] = raw
                return
            value = {name: value[name] for name in value.__codec__.by_name}  # a field without a value raises
        if isinstance(value, Mapping):
            self._encode_items(out, offset, value, where, rest)
        elif isinstance(value, tuple | list):
            self._encode_items(out, offset, self._in_order(value, where), where, rest)
        elif isinstance(value, Buffer) and len(value) == self.size:
            out[offset : offset + self.size] = value
        elif is_address(self) and (packed := packed_address(self, value, where)) is not None:
            out[offset : offset + self.size] = packed
        else:
            wanted = f"a mapping, a record, a tuple of fields, or {self.size} bytes"
            if isinstance(value, Buffer):
                raise MapValueError(
                    f"cannot store {short(value)}",
                    on=f"in {where} ({self.name})",
                    why=f"it has {len(value)} bytes, not {self.size}",
                    fix=f"give {wanted}",
                )
            raise wrong_type(value, self, where, wanted)

    def _encode_items(
        self, out: bytearray, offset: int, items: Mapping[str, Any], where: str, rest: bool
    ) -> None:
        members: list[Member] = []
        for name, value in items.items():
            field = self.by_name.get(name)
            if field is None:
                raise self._no_field(name, where)
            encode = field.codec.encode_rest if rest and field.tail else field.codec.encode_into
            if field.choice:
                members.append(Member(field, value, encode))
            else:
                encode(out, offset + field.offset, value, f"{where}.{name}")
        if members:
            write_members(out, slice(offset, offset + self.size), members, where, self.name)

    def _no_field(self, name: str, where: str) -> MapValueError:
        kept = name in self.hidden
        why = "the kernel keeps this field for itself: it is a lock, a timer or a kptr, for example"
        return MapValueError(
            f"cannot store field {name!r}",
            on=f"in {where} ({self.name})",
            why=why if kept else "there is no such field",
            fix="leave it out; programs alone can change it" if kept else closest(str(name), self.by_name),
        )

    def _in_order(self, values: tuple[Any, ...] | list[Any], where: str) -> dict[str, Any]:
        """Returns names for positional values.

        The values may be those that a record iterates over, those of each union's first alternative, or all.
        """
        shapes = [self.positions]
        if self._has_unions:
            shapes += [first_alternatives(self._items), self.fields]
        for shape in shapes:
            if len(values) == len(shape):
                return {f.name: v for f, v in zip(shape, values, strict=True)}
        raise MapTypeError(
            f"cannot store {len(values)} values",
            on=f"in {where} ({self.name})",
            why=f"it has {len(self.positions)} fields",
            fix=f"give a mapping, or a tuple in field order: {', '.join(f.name for f in self.positions)}",
        )


def _reader(field: Field, fixed: bool) -> Any:
    codec, at = field.codec, field.offset
    if type(codec) in (IntCodec, FloatCodec):
        unpack = struct.Struct(f"={codec.format}").unpack_from  # type: ignore[attr-defined]

        def read_number(record: Record) -> Any:  # the common case in one call
            return unpack(record.__data__, record.__offset__ + at)[0]

        return read_number
    decode = codec.decode if fixed or not field.tail else codec.decode_rest

    def read(record: Record) -> Any:
        return decode(record.__data__, record.__offset__ + at)

    return read


def _layout(codec: Codec) -> tuple[object, ...]:
    inner = codec.layout if isinstance(codec, StructCodec) else None
    element = getattr(codec, "element", None)  # of an array
    names = tuple(getattr(codec, "names", {}).items())  # of an enum
    return codec.name, codec.size, getattr(codec, "signed", None), names, inner, element and _layout(element)
