"""The interface that ring buffers and perf buffers share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class RecordSource(Protocol):
    """A buffer that a BPF program fills."""

    @property
    def lost(self) -> int:
        """Records that the kernel could not deliver, where it counts them."""
        ...

    @property
    def was_full(self) -> bool:
        """Whether there was no room for one more record at some time, where nobody counts what was lost."""
        ...

    @property
    def taken(self) -> int:
        """How many bytes somebody else read, which are gone then."""
        ...

    @property
    def overwritten(self) -> int:
        """How many bytes newer records took the place of before they were read."""
        ...

    @property
    def padding(self) -> int:
        """How many of a record's last bytes may be the buffer's and not the program's."""
        ...

    def drain(self) -> Iterable[bytes]:
        """The records that are there now, oldest first; they are then gone from the buffer."""

    def others(self) -> str | None:
        """Who else gets this buffer's records, in words; None when nobody is known to."""

    def wait(self, seconds: float) -> None:
        """Sleeps until a record may be there, for at most `seconds`."""

    def close(self) -> None:
        """Gives the buffer back. Safe to call again."""
