"""Codecs of arrays: bytes, text, and lists of any other type."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from pytest_bpfmaps.btf.array_values import Values
from pytest_bpfmaps.btf.codec import UP_TO_NUL, Buffer, Codec, IntCodec, checked_int, short, wrong_type
from pytest_bpfmaps.btf.listed_keys import ListedText, ListedValues
from pytest_bpfmaps.errors import MapValueError


class BytesCodec(Codec):
    """Bytes without a type, and arrays of 8-bit integers. The value is `bytes`.

    Takes bytes of exactly that size. With `filled` it takes shorter ones, too, and the rest is zero.
    """

    exact = True

    def __init__(self, name: str, size: int, filled: bool = False) -> None:
        self.name = name
        self.size = size
        self.filled = filled

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return bytes(data[offset : offset + self.size])

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        raw = self._to_bytes(value, where)
        if len(raw) != self.size and not (self.filled and len(raw) < self.size):
            raise MapValueError(
                f"cannot store {len(raw)} bytes",
                on=f"in {where} ({self.name})",
                why=f"it holds {self.size} bytes",
                fix=f"give {'at most' if self.filled else 'exactly'} {self.size} bytes",
            )
        out[offset : offset + len(raw)] = raw

    def _to_bytes(self, value: Any, where: str) -> bytes:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(value, int) and not self.filled:
            # a map without BTF knows only its sizes; an int is then the natural value to write
            limit = 1 << (8 * self.size)
            return checked_int(self, value, where, 0, limit - 1).to_bytes(self.size, sys.byteorder)
        if isinstance(value, list | tuple) and all(isinstance(v, int) and 0 <= v < 256 for v in value):
            return bytes(value)
        if hasattr(value, "packed"):  # an ipaddress object
            return bytes(value.packed)
        raise wrong_type(value, self, where, "bytes")


class TextCodec(Codec):
    """``char[N]``: a `str` up to the first NUL. Bytes that are not UTF-8 are kept as surrogates."""

    listed_class = ListedText

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    def listed(self, raw: bytes) -> Any:
        return self.decode(raw) if raw.rstrip(b"\0").find(0) < 0 else super().listed(raw)

    def says(self, data: Buffer, offset: int, strength: int) -> int:
        return self.shown_bits(data, offset) if strength == UP_TO_NUL else 0

    def shown_bits(self, data: Buffer, offset: int = 0) -> int:
        end = bytes(data[offset : offset + self.size]).find(0) + 1
        return (1 << 8 * (end or self.size)) - 1

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        raw = bytes(data[offset : offset + self.size])
        return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        if isinstance(value, str):
            raw = value.encode("utf-8", "surrogateescape")
        elif isinstance(value, bytes | bytearray | memoryview):
            raw = bytes(value)
        else:
            raise wrong_type(value, self, where, "a str or bytes")
        if len(raw) > self.size:
            raise MapValueError(
                f"cannot store {short(value)}",
                on=f"in {where} ({self.name})",
                why=f"it takes {len(raw)} bytes as UTF-8",
                fix=f"give at most {self.size} bytes",
            )
        out[offset : offset + len(raw)] = raw


class ArrayCodec(Codec):
    """An array. The value is a `list`.

    Takes any iterable of exactly that many values, but no str and no mapping. Takes bytes, too, when an
    element is an integer of one byte. ``__be32[4]`` takes an IPv6 address.
    """

    listed_class = ListedValues

    def __init__(self, name: str, element: Codec, count: int) -> None:
        self.name = name
        self.element = element
        self.count = count
        self.size = element.size * count

    @property
    def exact(self) -> bool:
        return self.element.exact

    def bits(self, *, exact: bool = False) -> int:
        if self.exact or not self.size:
            return super().bits(exact=exact)
        # each element has the same mask: a product with …0001 0001 repeats it
        step = self.element.size * 8
        return self.element.bits(exact=exact) * (((1 << step * self.count) - 1) // ((1 << step) - 1))

    def says(self, data: Buffer, offset: int, strength: int) -> int:
        if self.exact or not self.size:
            return super().says(data, offset, strength)
        found, step = 0, self.element.size
        for at in range(0, self.size, step):
            found |= self.element.says(data, offset + at, strength) << at * 8
        return found

    def clean(self, raw: bytes) -> bytes:
        step = self.element.size
        return b"".join([self.element.clean(raw[at : at + step]) for at in range(0, len(raw), step or 1)])

    def shown_bits(self, data: Buffer, offset: int = 0) -> int:
        if self.exact or not self.size:
            return self.bits()
        found, step = 0, self.element.size
        for at in range(0, self.size, step):
            found |= self.element.shown_bits(data, offset + at) << at * 8
        return found

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        if not self.count:
            return Values()
        if not self.size:  # of empty structs
            return Values([self.element.decode(data, offset)] * self.count)
        return Values(self.element.decode_all(data[offset : offset + self.size]))

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        values = self._to_list(value, where)
        if len(values) != self.count:
            raise MapValueError(
                f"cannot store {len(values)} values",
                on=f"in {where} ({self.name})",
                why=f"the array holds {self.count}",
                fix=f"give a list of {self.count} values",
            )
        step = self.element.size
        for i, item in enumerate(values):
            self.element.encode_into(out, offset + i * step, item, f"{where}[{i}]")

    def _to_list(self, value: Any, where: str) -> list[Any]:
        element = self.element
        if isinstance(value, bytes | bytearray) and isinstance(element, IntCodec) and element.size == 1:
            return element.decode_all(value)
        packed = getattr(value, "packed", None)  # an ipaddress object
        if element.network_order and isinstance(packed, bytes) and len(packed) == self.size:
            return element.decode_all(packed)
        if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
            raise wrong_type(value, self, where, "a list")
        return list(value)
