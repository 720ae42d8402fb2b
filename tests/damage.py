"""What disks and power failures do to files, for property tests."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st


def damages(size: int) -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Cut short, a few bits flipped, or a page lost, as disks and power failures do it."""
    cut = st.integers(0, size - 1).map(lambda n: lambda data: data[:n])
    flips = st.lists(st.integers(0, size * 8 - 1), min_size=1, max_size=4, unique=True).map(
        lambda bits: lambda data: _flipped(data, bits)
    )
    lost = st.integers(0, size - 1).map(lambda n: lambda data: _lost(data, n))
    return st.one_of(cut, flips, lost)


def _flipped(data: bytes, bits: list[int]) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _lost(data: bytes, start: int) -> bytes:
    changed = data[:start].ljust(len(data), b"\0")
    return changed if changed != data else data[:-1]
