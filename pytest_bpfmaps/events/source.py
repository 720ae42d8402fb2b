"""Where records come from: the face that ring and perf buffers share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Source(Protocol):
    """A buffer that a BPF program fills."""

    lost: int
    """Records that the kernel could not deliver, where it counts them."""

    was_full: bool
    """Whether there was no room for one more record at some time, where nobody counts what was lost."""

    padding: int
    """How many of a record's last bytes may be the buffer's and not the program's."""

    def drain(self) -> Iterable[bytes]:
        """The records that are there now, oldest first; they are then gone from the buffer."""

    def wait(self, seconds: float) -> None:
        """Sleeps until a record may be there, for at most `seconds`."""

    def close(self) -> None:
        """Gives the buffer back. Safe to call again."""
