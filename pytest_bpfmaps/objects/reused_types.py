"""Compares the types of a live map with those of the object that reuses it.

libbpf compares the sizes of keys and values only. A map that an older program pinned may have other fields.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from pytest_bpfmaps.btf import Codec, Codecs
from pytest_bpfmaps.btf.array_codecs import ArrayCodec, BytesCodec, TextCodec
from pytest_bpfmaps.btf.codec import FloatCodec
from pytest_bpfmaps.btf.enumerator import depth
from pytest_bpfmaps.btf.enums import BitfieldCodec
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import MapError, ReusedTypeWarning, UnsupportedError
from pytest_bpfmaps.kernel.btf import load_codecs
from pytest_bpfmaps.maps import map_info
from pytest_bpfmaps.maps.declared_types import DeclaredTypes


def warn_of_other_types(fd: int, what: str, declared: DeclaredTypes, codecs: Codecs) -> None:
    """Warns if the fields of a live map's keys or values differ from those that an object declares.

    `fd` is the live map's descriptor, and `what` names the object's map. Names of types do not count.
    """
    for part, theirs, mine in _types(fd, declared, codecs):
        if shape(theirs) != shape(mine):
            warnings.warn(
                f"{what} reuses a live map whose {part} has other fields: {_fields(theirs)} there, "
                f"{_fields(mine)} in the object; libbpf compares their sizes only; remove the pin, or give "
                "the map of the new layout another name",
                ReusedTypeWarning,
                stacklevel=depth(),
            )


def _types(fd: int, declared: DeclaredTypes, codecs: Codecs) -> Iterator[tuple[str, Codec, Codec]]:
    """Yields ``key`` and ``value`` with the live map's type and the object's, if both are known."""
    info = map_info(fd)
    pairs = (
        ("key", info.btf_key_type_id, declared.key),
        ("value", info.btf_value_type_id, declared.value),
    )
    try:
        live = load_codecs(info.btf_id) if info.btf_id else None
        for part, theirs, mine in pairs if live else ():
            if live and theirs and mine:
                yield part, live.get(theirs), codecs.get(mine)
    except (MapError, UnsupportedError):
        return  # it may not read the types of other maps


def shape(codec: Codec) -> tuple[object, ...]:
    """Returns the size of a type and its fields, without the names of types and the signs of numbers."""
    match codec:
        case StructCodec():
            fields = tuple((f.name, f.offset, shape(f.codec)) for f in codec.by_name.values())
            return codec.size, tuple(sorted(codec.hidden)), fields
        case ArrayCodec():
            return codec.count, shape(codec.element)
        case BitfieldCodec():
            return codec.shift, codec.width
        case TextCodec() | BytesCodec() | FloatCodec():
            return codec.size, type(codec).__name__
    return codec.size, "number"


def _fields(codec: Codec) -> str:
    """Returns a type as a message shows it, with its fields."""
    if not isinstance(codec, StructCodec):
        return codec.name
    return f"{codec.name} {{ {' '.join(f'{f.codec.name} {f.name};' for f in codec.fields)} }}"
