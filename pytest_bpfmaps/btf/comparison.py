"""Compares values in every form in which they can be written.

Such forms are an enumerator's name, an address, and bytes as a list.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_bpfmaps.btf.array_codecs import ArrayCodec, BytesCodec, TextCodec
from pytest_bpfmaps.btf.codec import Codec, FloatCodec, IntCodec, WideIntCodec
from pytest_bpfmaps.btf.enums import BitfieldCodec, EnumCodec
from pytest_bpfmaps.btf.field import Field
from pytest_bpfmaps.btf.flexible_arrays import FlexibleArrayCodec
from pytest_bpfmaps.btf.ip_addresses import AddressCodec
from pytest_bpfmaps.errors import BpfError


def same(codec: Codec | None, value: Any, wanted: Any) -> bool:
    """Returns whether writing `wanted` would give `value`, which `codec` decoded.

    Warns of a text that is no name of the enum.
    """
    enum = codec.base if isinstance(codec, BitfieldCodec) else codec
    if isinstance(enum, EnumCodec) and isinstance(wanted, str) and isinstance(value, int):
        return enum.is_called(value, wanted)
    if value is wanted or bool(value == wanted):
        return True
    if codec is None or codec.absent or wanted is None or isinstance(wanted, Mapping | int | float):
        return (
            isinstance(codec, FloatCodec) and isinstance(wanted, float) and _rounded(codec, wanted) == value
        )
    if _hides(codec, wanted):
        return hasattr(value, "__codec__") and bytes(value) == _written(codec, wanted)
    if isinstance(codec, FlexibleArrayCodec):
        return same(codec.with_count(len(value)), value, wanted)
    if type(codec) in _NUMBERS and isinstance(value, int):
        return _in_network_order(codec, value) == getattr(wanted, "packed", None)
    if isinstance(codec, ArrayCodec) and isinstance(wanted, list | tuple) and isinstance(value, list | tuple):
        pairs = zip(value, wanted, strict=False)
        return len(value) == len(wanted) and all(same(codec.element, a, b) for a, b in pairs)
    if (
        isinstance(codec, BytesCodec)
        and isinstance(wanted, list | tuple | bytearray)
        and len(wanted) != len(value)
    ):
        return False  # writing a shorter one would fill it with zeros, so it would seem equal
    try:
        return bool(codec.decode(codec.encode(wanted, "")) == value)
    except BpfError:
        return False


def same_field(record: Any, field: Field, value: Any, wanted: Any) -> bool:
    """As `same`, for a field of a record, which also has the bytes behind the NUL of a text."""
    if not isinstance(field.codec, TextCodec) or not _hides(field.codec, wanted):
        return same(field.codec, value, wanted)
    return bytes(record)[field.offset :][: field.codec.size] == _written(field.codec, wanted)


def _hides(codec: Any, wanted: Any) -> bool:
    """Returns whether a text in `wanted` has bytes behind its NUL, which no decoded text shows."""
    if isinstance(codec, TextCodec) and isinstance(wanted, str | bytes | bytearray):
        zero: Any = "\0" if isinstance(wanted, str) else b"\0"
        return bool(wanted.partition(zero)[2].strip(zero))
    if not isinstance(wanted, list | tuple):
        return False
    if isinstance(codec, ArrayCodec):
        return any(_hides(codec.element, each) for each in wanted)
    fields = zip(getattr(codec, "positions", ()), wanted, strict=False)
    return any(_hides(field.codec, each) for field, each in fields)


def _written(codec: Codec, wanted: Any) -> bytes | None:
    """Returns the bytes that writing `wanted` would give; None if it can't be written."""
    try:
        return codec.encode(wanted, "")
    except BpfError:
        return None


_NUMBERS = (IntCodec, WideIntCodec, AddressCodec)
_PLAIN = (str, bytes, bytearray, int, float, list, tuple, type(None))  # others may define their own equality


def never_equal(codec: Codec, wanted: Any) -> BpfError | None:
    """Returns an error that says why no value of the type equals `wanted`.

    Returns None if a value may be equal, also one of an array that was sent in part.
    """
    if codec.absent or not isinstance(wanted, _PLAIN) or isinstance(codec, FlexibleArrayCodec):
        return None
    if isinstance(wanted, float) and wanted.is_integer() and not isinstance(codec, FloatCodec):
        wanted = int(wanted)
    if isinstance(wanted, list | tuple) and isinstance(codec, ArrayCodec) and len(wanted) <= codec.count:
        reasons = (never_equal(codec.element, each) for each in wanted)
        return next((reason for reason in reasons if reason is not None), None)
    if isinstance(wanted, list | tuple) and not all(isinstance(each, _PLAIN) for each in wanted):
        return None
    try:
        codec.encode(wanted, "")
    except BpfError as e:
        return e
    return None


def _rounded(codec: Codec, number: float) -> Any:
    """Returns the number that writing `number` would give."""
    try:
        return codec.decode(codec.encode(number, ""))
    except BpfError:
        return None


def _in_network_order(codec: Codec, number: int) -> bytes:
    """Returns a number's bytes. They are an address when the program stored it in network byte order."""
    return number.to_bytes(codec.size, sys.byteorder, signed=number < 0)


def byte_swap(mine: Any, theirs: Any) -> str | None:
    """Returns a hint for two different numbers when one is the other in network byte order, else None.

    The second may be an `ipaddress` object.
    """
    if isinstance(getattr(theirs, "packed", None), bytes) and type(mine) is int and mine == int(theirs):
        return f"{mine} is {theirs} in the host's byte order: did the program use bpf_ntohl()?"
    if not (type(mine) is type(theirs) is int) or mine == theirs or min(mine, theirs) < 0:
        return None
    for size, short in ((2, "s"), (4, "l")):
        if (
            max(mine, theirs) >> 8 * size == 0
            and int.from_bytes(mine.to_bytes(size, "little"), "big") == theirs
        ):
            return (
                f"{mine} is {theirs} with its bytes swapped, as the network has them: "
                f"bpf_ntoh{short}() in the program, or socket.hton{short}({theirs}) in the test?"
            )
    if max(mine, theirs) >> 64 == 0 and int.from_bytes(mine.to_bytes(8, "little"), "big") == theirs:
        return f"{mine} is {theirs} with its bytes swapped: bpf_be64_to_cpu() in the program?"
    return None


def swapped_key(wanted: Any, keys: Iterable[Any]) -> str | None:
    """Returns a hint for a missing key when one of `keys` is it in another order of bytes or of fields.

    Returns None if there is no such key.
    """
    for key in keys:
        if hint := byte_swap(key, wanted):
            return hint
        there, asked = _fields(key), _fields(wanted)
        different = [name for name in asked if there.get(name) != asked[name]]
        hints = [byte_swap(there.get(name), asked[name]) for name in different]
        if hints and all(hints):
            return f".{different[0]}: {hints[0]}"
        if len(different) == 2:
            one, two = different
            if (there.get(one), there.get(two)) == (asked[two], asked[one]):
                return f"a key is there in which .{one} and .{two} have each other's values"
    return None


def _fields(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    codec = getattr(value, "__codec__", None)
    return {f.name: value.__peek__(f.name) for f in codec.fields if not f.codec.absent} if codec else {}
