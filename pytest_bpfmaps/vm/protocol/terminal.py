"""What goes over the port of the terminal: bytes of standard streams in frames, and how a program ended.

A frame is one byte for its kind, four bytes for its length (big-endian), and that many bytes. An empty frame
of the kind `STDIN` is the end of the input. For a command, sizes of the terminal and signals are lines of
JSON on the port ``bpfmaps.control``: they come through even while it does not read its input. For a debugger,
a frame of the kind `SIZE` has rows and columns as JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

STDIN, STDOUT, STDERR, END, SIZE = b"i", b"o", b"e", b"x", b"w"
KINDS = (STDIN, STDOUT, STDERR, END, SIZE)
LARGEST = 1 << 16  # bytes in a frame
ENOUGH = 1 << 18  # bytes that wait to be written; a side that has more of them does not read
_HEAD = struct.Struct(">cI")


def frame(kind: bytes, data: bytes = b"") -> bytes:
    """Returns one frame."""
    return _HEAD.pack(kind, len(data)) + data


class Frames:
    """Takes bytes as they come, and gives whole frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Gives kind and bytes of each frame that `data` completes. Raises ValueError for other bytes."""
        self._rest += data
        while len(self._rest) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._rest)
            if kind not in KINDS or length > LARGEST:
                raise ValueError(f"{self._rest[: _HEAD.size]!r} begins no frame")
            end = _HEAD.size + length
            if len(self._rest) < end:
                return
            made, self._rest = self._rest[_HEAD.size : end], self._rest[end:]
            yield kind, made
