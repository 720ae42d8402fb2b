"""Packed values as NumPy arrays, with dtypes made from BTF. NumPy is imported on first use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytest_bpfmaps.btf.array_codecs import ArrayCodec, BytesCodec, TextCodec
from pytest_bpfmaps.btf.codec import BoolCodec, Buffer, Codec, FloatCodec, IntCodec, WideIntCodec
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import MapValueError, UnsupportedError


def numpy() -> Any:
    """Returns the NumPy module. Raises `UnsupportedError` when NumPy is not installed."""
    try:
        import numpy as module
    except ImportError as e:
        raise UnsupportedError(
            "cannot make an array", why="NumPy is not installed", fix="pip install 'pytest-bpfmaps[numpy]'"
        ) from e
    return module


def dtype(codec: Codec) -> Any:
    """Returns the NumPy dtype of a type.

    Integers, pointers, enums, `bool` and floats keep their width. ``char[N]`` becomes ``S``. Other arrays
    become subarrays. A struct has its fields, without bitfields, which have no byte address; the members of a
    union overlap. A 128-bit integer becomes 16 bytes (``V16``).

    Raises `UnsupportedError` for a type without a size.
    """
    np = numpy()
    match codec:
        case BoolCodec(size=1):
            return np.dtype(np.bool_)
        case IntCodec() | FloatCodec():
            return np.dtype(f"={codec.format}")
        case TextCodec(size=size) if size:
            return np.dtype(f"S{size}")
        case BytesCodec(size=size, filled=True):
            return np.dtype((np.uint8, (size,)))
        case BytesCodec(size=size) | WideIntCodec(size=size):
            return np.dtype(f"V{size}")
        case ArrayCodec():
            return np.dtype((dtype(codec.element), (codec.count,)))
        case StructCodec():
            return _struct(np, codec)
    raise UnsupportedError("cannot make an array", on=f"of {codec.name}", why="NumPy has no such type")


def _struct(np: Any, codec: StructCodec) -> Any:
    fields = [f for f in codec.fields if not f.codec.is_bitfield and not f.tail]
    return np.dtype(
        {
            "names": [f.name for f in fields],
            "formats": [dtype(f.codec) for f in fields],
            "offsets": [f.offset for f in fields],
            "itemsize": codec.size,
        }
    )


def to_array(raw: Buffer, codec: Codec, count: int, lanes: int = 0, step: int = 0) -> Any:
    """Returns `count` packed values as a new array.

    With `lanes`, each row has that many values, one for each CPU. They are `step` bytes apart in `raw`.
    """
    np = numpy()
    shape, strides = ((count, lanes), (lanes * step, step)) if lanes else ((count,), (codec.size,))
    made = np.empty(shape, f"V{codec.size}")
    if made.size and codec.size:
        made[...] = np.ndarray(shape, made.dtype, raw, 0, strides)
    return np.ndarray(shape, dtype(codec), made)


def from_blocks(blocks: Iterable[tuple[int, Buffer, int, int]], codec: Codec, total: int) -> Any:
    """Returns one array of `total` values from blocks of (number of values, their bytes, start, step)."""
    np = numpy()
    made = np.empty(total, f"V{codec.size}")  # NumPy copies bytes five times as fast as fields
    end = 0
    for count, raw, start, step in blocks:
        made[end : end + count] = np.ndarray((count,), made.dtype, raw, start, (step,))
        end += count
    return np.ndarray((total,), dtype(codec), made)


def from_array(array: Any, codec: Codec, where: str, lanes: int = 0, step: int = 0) -> Any:
    """Returns the bytes of an array's values as a buffer.

    With `lanes`, each row has that many values, one for each CPU, and they become `step` bytes apart. A row
    may also be one value for all CPUs. Raises `MapValueError` for a wrong shape, and for the first value that
    the C type can't hold.
    """
    np = numpy()
    base = wanted = dtype(codec)
    inner: tuple[int, ...] = ()  # the dimensions of a C array; `base` is the dtype of its elements
    while base.subdtype:
        base, dimensions = base.subdtype
        inner += dimensions
    given = np.asarray(array)
    if lanes and given.ndim == 1 + len(inner):
        given = np.repeat(given[:, None], lanes, axis=1)  # one value for all CPUs
    shape = (len(given), lanes) if lanes else (len(given),)
    if given.shape != (*shape, *inner):
        raise MapValueError(
            f"cannot store an array of shape {given.shape}",
            on=f"in {where}",
            fix=f"its shape must be {(*shape, *inner)}",
        )
    converted = given if given.dtype == base else _converted(np, given, base, codec, where)
    if lanes and step != codec.size:
        padded = np.zeros(shape, {"names": ["v"], "formats": [wanted], "itemsize": step})
        padded["v"] = converted
        converted = padded
    return memoryview(np.ascontiguousarray(converted)).cast("B")


def _converted(np: Any, given: Any, wanted: Any, codec: Codec, where: str) -> Any:
    if wanted.kind in "iub" and given.dtype.kind in "iub":
        made = given.astype(wanted)
        wrong = given[made != given]
        if len(wrong):
            _element(codec).encode(wrong[0].item(), where)  # raises an error with the reason
        return made
    try:
        return given.astype(wanted, casting="same_kind")
    except TypeError as e:
        raise MapValueError(
            f"cannot store an array of {given.dtype}",
            on=f"in {where} ({codec.name})",
            why=str(e),
            fix=f"give an array of {wanted}",
        ) from None


def _element(codec: Codec) -> Codec:
    while isinstance(codec, ArrayCodec):
        codec = codec.element
    return IntCodec("__u8", 1, signed=False) if isinstance(codec, BytesCodec) else codec


def check_lengths(keys: Any, values: Any, on: str) -> None:
    """Raises `MapValueError` unless there are as many values as keys."""
    if len(keys) != len(values):
        raise MapValueError(f"cannot store {len(keys)} keys with {len(values)} values", on=f"in {on}")
