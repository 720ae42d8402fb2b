"""Finds elements whose keys are equal as values, but differ as bytes: in padding, or after a NUL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.listed_keys import Listed

ADVICE = (
    "clear all bytes of the key before you set its fields, __builtin_memset(&key, 0, sizeof(key)); "
    "or declare a key without holes"
)
_MOST_SEARCHED = 10_000  # keys, which takes tens of milliseconds
_SHOWN = 3


def describe(keys: Sequence[bytes], asked: bytes = b"") -> str:
    """Returns a sentence about elements whose keys look alike, with the bytes that differ.

    With `asked`, it also names the bytes that differ from that key.
    """
    one = len(keys) == 1
    head = "1 element has this key: its" if one else f"{len(keys)} elements have this key: their"
    return f"{head} padding differs (uninitialised bytes?){_places([asked, *keys] if asked else keys)}"


def _places(keys: Sequence[bytes]) -> str:
    differ = [at for at in range(len(keys[0])) if len({k[at] for k in keys}) > 1]
    if not differ:
        return ""
    first, end = differ[0], differ[-1] + 1
    shown = ", ".join(k[first:end].hex(" ", -4) for k in keys[:_SHOWN]) + (
        ", …" if len(keys) > _SHOWN else ""
    )
    where = f"byte {first}" if end - first == 1 else f"bytes {first} to {end - 1}"
    return f": {where}: {shown}"


def alike(codec: Codec, raws: Iterable[bytes], asked: bytes) -> list[bytes]:
    """Returns the keys that equal `asked` as values; in a large map, it searches only the first keys."""
    if codec.exact:
        return []
    wanted = codec.decode(asked)
    return [raw for raw in islice(raws, _MOST_SEARCHED) if codec.decode(raw) == wanted]


def odd_keys(codec: Codec, keys: Iterable[Any]) -> dict[Any, list[Any]]:
    """Returns the keys that are no plain values (see `Listed`), by their values."""
    by_value: dict[Any, list[Any]] = {}
    if not codec.exact:
        for key in keys:
            if isinstance(key, Listed):
                by_value.setdefault(codec.decode(codec.clean(key.__raw__)), []).append(key)
    return by_value
