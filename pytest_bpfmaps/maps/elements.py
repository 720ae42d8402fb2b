"""Elements of a map as bytes, and arrays that can be mapped into memory."""

from __future__ import annotations

import mmap
from array import array
from dataclasses import dataclass
from math import gcd
from typing import Any

_ALIGNED = 8  # in bytes: an element's place in the kernel
_FORMATS: dict[int, Any] = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Elements:
    """What was in a map: keys and values, each packed one after another.

    `restarts`: how often the reader had to find its place again, because the key where it stood was deleted;
    0 when the kernel read in batches. `complete`: False when writers kept the reader from coming to an end.
    """

    keys: bytes
    values: bytes
    count: int
    restarts: int = 0
    complete: bool = True


def read_mapped(fd: int, count: int, size: int) -> Elements | None:
    """The `count` elements of `size` bytes of an array (``BPF_F_MMAPABLE``, Linux 5.5, commit fc9702273e2e).

    None where it can't be mapped.
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
    """The first `size` bytes of each `step`."""
    if size == step:
        return raw
    word = gcd(size, _ALIGNED)  # a whole number of them makes both
    source = memoryview(raw).cast(_FORMATS[word])
    made = bytearray(len(raw) // step * size)
    target = memoryview(made).cast(_FORMATS[word])
    for at in range(size // word):
        target[at :: size // word] = source[at :: step // word]
    return bytes(made)
