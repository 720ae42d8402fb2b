"""Passes what a guest's worker sends on to execnet, as long as it is messages of execnet.

A test in a guest can write to the port of its worker. Then execnet would wait for the rest of a message that
never comes, or would stop to read. See `Message` in execnet's ``gateway_base.py``: a message has
a header (kind, channel, length of the rest) and the rest.
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Callable

from pytest_bpfmaps.vm.gateway.execnet_bootstrap import CHUNK, write_all

_HEADER = struct.Struct("!bii")
_FROM_WORKERS = frozenset(
    {2, 4, 5, 6, 7}
)  # GATEWAY_TERMINATE, CHANNEL_DATA, _CLOSE, _CLOSE_ERROR, _LAST_MESSAGE
LONGEST = 1 << 28
"""Bytes of a message. A report of pytest is far smaller."""


class Messages:
    """Follows where messages begin in a stream of bytes. It keeps no message."""

    def __init__(self) -> None:
        self._header = b""
        self._length = 0
        self._missing = 0

    @property
    def is_open(self) -> bool:
        """Whether the last message is not complete."""
        return bool(self._header or self._missing)

    @property
    def rest(self) -> str:
        """What is missing of the last message."""
        return f"{self._missing or _HEADER.size - len(self._header)} bytes of {self._length or _HEADER.size}"

    def feed(self, data: bytes) -> str | None:
        """Takes the next bytes. Returns what is wrong with them, if they are no message of a worker."""
        at = 0
        while at < len(data):
            if self._missing:
                taken = min(self._missing, len(data) - at)
                self._missing -= taken
                at += taken
                continue
            wanted = _HEADER.size - len(self._header)
            self._header += data[at : at + wanted]
            at += wanted
            if len(self._header) == _HEADER.size:
                kind, channel, self._length = _HEADER.unpack(self._header)
                if kind not in _FROM_WORKERS or channel < 0 or not 0 <= self._length <= LONGEST:
                    return f"a message of kind {kind}, channel {channel}, {self._length} bytes"
                self._header, self._missing = b"", self._length
        return None


def pass_on(source: int, target: int, seconds: float, fault: Callable[[str], None]) -> None:
    """Copies messages from one descriptor to another until either is closed.

    Calls `fault` with a sentence, and ends, when something else comes, or when the rest of a message does not
    come for `seconds` seconds.
    """
    messages = Messages()
    poll = select.poll()
    poll.register(source, select.POLLIN)
    try:
        while True:
            if not poll.poll(int(seconds * 1000) if messages.is_open else None):
                late = f"{messages.rest} did not come in {seconds:g} s"
                fault(f"on its worker's port, a message has no end: {late}")
                return
            chunk = os.read(source, CHUNK)
            if not chunk:
                return
            if wrong := messages.feed(chunk):
                fault(f"on its worker's port came {wrong}, which no worker sends")
                return
            write_all(target, chunk)
    except OSError:
        return
