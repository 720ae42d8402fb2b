"""Elements of a map as bytes; reads arrays that can be mapped into memory."""

from __future__ import annotations

import mmap
from array import array
from dataclasses import dataclass
from math import gcd
from typing import Any

_ALIGNED = 8  # bytes: the kernel's alignment of an element
_FORMATS: dict[int, Any] = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Elements:
    """The keys and values of a map, each packed one after another.

    `restarts` counts how often the reader had to go on from an earlier key, because the key that it had
    reached was deleted; it is 0 if the kernel read in batches. `complete` is False if programs wrote so fast
    that the reader gave up.
    """

    keys: bytes
    values: bytes
    count: int
    restarts: int = 0
    complete: bool = True


def read_mapped(fd: int, count: int, size: int) -> Elements | None:
    """Returns the `count` elements of `size` bytes of an array; None if it can't be mapped.

    It needs ``BPF_F_MMAPABLE`` (Linux 5.5, commit fc9702273e2e).
    """
    step = -(-size // _ALIGNED) * _ALIGNED
    length = -(-count * step // mmap.PAGESIZE) * mmap.PAGESIZE
    try:
        mapped = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError):
        return None
    with mapped:
        values = mapped[: count * step]
    return Elements(array("I", range(count)).tobytes(), _without_gaps(values, size, step), count)


def _without_gaps(raw: bytes, size: int, step: int) -> bytes:
    """Returns the first `size` bytes of each `step` bytes."""
    if size == step:
        return raw
    word = gcd(size, _ALIGNED)  # both sizes are multiples of it
    source = memoryview(raw).cast(_FORMATS[word])
    made = bytearray(len(raw) // step * size)
    target = memoryview(made).cast(_FORMATS[word])
    for at in range(size // word):
        target[at :: size // word] = source[at :: step // word]
    return bytes(made)
