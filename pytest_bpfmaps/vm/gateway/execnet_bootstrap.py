"""Reads the first line that execnet sends to a Python interpreter, and the bytes after it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Self

CHUNK = 1 << 16
_ID = re.compile(r"id='([^']*)-worker'")
_MODEL = re.compile(r"get_execmodel\('(\w+)'\)")


@dataclass(frozen=True)
class Bootstrap:
    """The line that would make a worker of any interpreter, and perhaps bytes that follow it.

    The line has the worker's id and its execution model.
    """

    line: bytes
    rest: bytes
    worker: str
    model: str

    @classmethod
    def take(cls) -> Self:
        """Reads the line from stdin, and answers it. Raises SystemExit when stdin ends before."""
        data = b""
        while b"\n" not in data:
            chunk = os.read(0, CHUNK)
            if not chunk:
                raise SystemExit(0)
            data += chunk
        line, end, rest = data.partition(b"\n")
        tail = line[-400:].decode().replace("\\'", "'")
        os.write(1, b"1")
        worker, model = _ID.findall(tail) or ["?"], _MODEL.findall(tail) or ["main_thread_only"]
        return cls(line + end, rest, worker[-1], model[-1])


def pump(source: int, target: int) -> None:
    """Copies bytes from one descriptor to another until either is closed."""
    try:
        while chunk := os.read(source, CHUNK):
            write_all(target, chunk)
    except OSError:
        return


def write_all(target: int, data: bytes) -> None:
    """Writes all bytes to a descriptor. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
