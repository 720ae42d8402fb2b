"""Tells how full a BPF ring buffer is, and how full it was when a reader in this process looked."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_bpfmaps.events.ringbuf_memory import OVERWRITTEN, RingMemory


@dataclass(slots=True)
class Peak:
    """The most unread bytes that a reader saw, and whether there was no room for one more record."""

    unread: int = 0
    was_full: bool = False


@dataclass(frozen=True, slots=True)
class RingFill:
    """The bytes of all records so far (`produced`), and of those that are unread now, with their headers.

    `is_full` says whether there is no room for one more record of the size of the oldest unread one.
    """

    produced: int
    unread: int
    is_full: bool


_peaks: dict[int, Peak] | None = None


def keep_peaks() -> None:
    """Makes readers remember what they see, until `take_peak` is called."""
    global _peaks  # noqa: PLW0603
    _peaks = {} if _peaks is None else _peaks


def peak_of(map_id: int) -> Peak:
    """Returns the object in which a reader of the map with that id records what it sees."""
    return Peak() if _peaks is None else _peaks.setdefault(map_id, Peak())


def take_peak(map_id: int) -> Peak:
    """Returns what readers of the map have seen since the last call."""
    return (_peaks or {}).pop(map_id, None) or Peak()


def ring_fill(fd: int, size: int, on: str, *, overwrites: bool) -> RingFill:
    """Reads the positions of a ring buffer of `size` bytes. Raises `MapError` if it can't be mapped."""
    memory = RingMemory(fd, size, on, writable=False)
    try:
        consumed, produced = memory.consumer_position[0], memory.positions[0]
        if overwrites:
            consumed = max(consumed, memory.positions[OVERWRITTEN])
        is_full = not overwrites and memory.is_full(consumed, produced - consumed)
    finally:
        memory.close()
    return RingFill(produced, produced - consumed, is_full)
