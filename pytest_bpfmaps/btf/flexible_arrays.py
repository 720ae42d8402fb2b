"""Flexible arrays: ``T x[]`` at the end of a struct takes the rest of a record.

Without a rest, in a map's value for example, the array is empty and can't be written.
"""

from __future__ import annotations

from typing import Any

from pytest_bpfmaps.btf.array_codecs import ArrayCodec, BytesCodec, TextCodec
from pytest_bpfmaps.btf.codec import Buffer, Codec
from pytest_bpfmaps.errors import MapValueError


class FlexibleArrayCodec(Codec):
    """``T x[]``. The value is a `list`; a `str` for ``char[]``; `bytes` for other 8-bit integers."""

    size = 0
    flexible = True

    def __init__(self, name: str, fixed: Codec, element: Codec) -> None:
        self.name = name
        self._fixed = fixed
        self._element = element

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        return self._fixed.decode(data, offset)

    def decode_rest(self, data: Buffer, offset: int = 0) -> Any:
        return self.with_count(self._room(data, offset)).decode(data, offset)

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        if isinstance(value, Buffer | str | list | tuple) and len(value):
            raise MapValueError(
                f"cannot store {len(value)} values",
                on=f"in {where} ({self.name})",
                why="a flexible array has no room here",
                fix="leave the field out",
            )
        self._fixed.encode_into(out, offset, value, where)

    def encode_rest(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        count = len(raw) if hasattr(raw, "__len__") else 0
        end = offset + count * self._element.size
        out.extend(bytes(max(0, end - len(out))))
        self.with_count(count).encode_into(out, offset, value, where)

    def _room(self, data: Buffer, offset: int) -> int:
        return max(0, len(data) - offset) // self._element.size if self._element.size else 0

    def with_count(self, count: int) -> Codec:
        """Returns the codec of an array of `count` elements."""
        if isinstance(self._fixed, TextCodec):
            return TextCodec(self.name, count)
        if isinstance(self._fixed, BytesCodec):
            return BytesCodec(self.name, count, filled=True)
        return ArrayCodec(self.name, self._element, count)


class RecordBytesCodec(BytesCodec):
    """A whole record, of any length, as `bytes`."""

    flexible = True

    def __init__(self) -> None:
        super().__init__("bytes", 0)

    def decode_rest(self, data: Buffer, offset: int = 0) -> Any:
        return bytes(data[offset:])
