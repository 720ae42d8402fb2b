"""The parts of a ``.BTF`` section besides its types: the header and the table of strings."""

from __future__ import annotations

import struct

_MAGIC, _VERSION, _HEADER_SIZE = 0xEB9F, 1, 24


class StringTable:
    """The strings of a section, each added once. `raw` has the strings that the section already has."""

    def __init__(self, raw: bytes = b"\0") -> None:
        self._raw = bytearray(raw)
        self._known: dict[str, int] = {"": 0}

    def offset(self, text: str) -> int:
        """Returns the offset of a string, which is added at its first use."""
        at = self._known.get(text)
        if at is None:
            at = self._known[text] = len(self._raw)
            self._raw += text.encode() + b"\0"
        return at

    def __bytes__(self) -> bytes:
        return bytes(self._raw)


def to_section(types: bytes, strings: StringTable) -> bytes:
    """Returns the whole section in this machine's byte order."""
    texts = bytes(strings)
    sizes = (0, len(types), len(types), len(texts))
    return struct.pack("=HBBIIIII", _MAGIC, _VERSION, 0, _HEADER_SIZE, *sizes) + types + texts
