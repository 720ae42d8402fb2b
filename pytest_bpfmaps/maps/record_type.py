"""Finds the struct of a buffer's records if a test names none."""

from __future__ import annotations

from pytest_bpfmaps.btf import BytesCodec, Codec, Codecs
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import AmbiguousNameError, NameLookupError


def is_declared(value: Codec) -> bool:
    """Returns whether a buffer's declared value type is the type of its records."""
    return bool(value.size) and not isinstance(value, BytesCodec)


def struct_of_records(
    codecs: Codecs, name: str | None, default: str, *, what: str, on: str, how: str
) -> StructCodec:
    """Returns the struct of that name, or the struct `default`.

    Raises `NameLookupError` if there is none: `what` says what was tried, `how` is a call that names a struct
    or needs none.
    """
    try:
        return codecs.struct(name or default)
    except NameLookupError as e:
        if name is not None or isinstance(e, AmbiguousNameError):
            raise
        raise NameLookupError(
            what,
            on=on,
            why=f"the map declares no value type and the object has no struct {default!r}",
            fix=f"name it: {how}; {e.fix}",
        ) from None
