"""What disks and power failures do to files, for property tests."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

_PLACES = st.integers(0, (1 << 32) - 1)
"""Places in a file of any size: files may differ in size from one example to the next."""


def damages() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Cut short, a few bits flipped, or a page lost, as disks and power failures do it."""
    cut = _PLACES.map(lambda place: lambda data: data[: _scaled(place, len(data))])
    flips = st.lists(_PLACES, min_size=1, max_size=4, unique=True).map(
        lambda places: lambda data: _flipped(data, {_scaled(place, len(data) * 8) for place in places})
    )
    lost = _PLACES.map(lambda place: lambda data: _lost(data, _scaled(place, len(data))))
    return st.one_of(cut, flips, lost)


def _scaled(place: int, size: int) -> int:
    return place * size >> 32


def _flipped(data: bytes, bits: set[int]) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _lost(data: bytes, start: int) -> bytes:
    changed = data[:start].ljust(len(data), b"\0")
    return changed if changed != data else data[:-1]
