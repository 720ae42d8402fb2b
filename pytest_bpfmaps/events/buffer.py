"""The interface that ring buffers and perf buffers share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class RecordSource(Protocol):
    """A buffer that a BPF program fills."""

    @property
    def lost(self) -> int:
        """The number of records that the kernel could not deliver, if it counts them."""
        ...

    @property
    def times_full(self) -> int:
        """How often a look found no room for one more record, if the kernel does not count lost records."""
        ...

    @property
    def taken(self) -> int:
        """How many bytes another reader took, so that this one can't read them."""
        ...

    @property
    def overwritten(self) -> int:
        """How many unread bytes were overwritten by newer records."""
        ...

    @property
    def missed(self) -> int:
        """How many bytes of records were overwritten before a tap could copy them."""
        ...

    @property
    def padding(self) -> int:
        """How many of a record's last bytes may come from the buffer, and not from the program."""
        ...

    def drain(self) -> Iterable[bytes]:
        """Takes the records out of the buffer, and returns them, oldest first."""

    def others(self) -> str | None:
        """Returns a sentence about other readers of this buffer; None if none is known."""

    def wait(self, seconds: float) -> None:
        """Sleeps until a record may be there, for at most `seconds`."""

    def close(self) -> None:
        """Closes the buffer. Safe to call again."""
