"""Reads a program's standard streams: ``bpf_stream_printk`` (Linux 6.17, commit 5ab154f1463a).

The kernel also writes to stderr when a program faults in its arena, or is stopped because it runs too long.
"""

from __future__ import annotations

from pytest_bpfmaps.errors import UnsupportedError, strerror
from pytest_bpfmaps.libbpf import ffi
from pytest_bpfmaps.libbpf.syscalls import BPF_PROG_STREAM_READ_BY_FD, address, bpf, pack

_NUMBERS = {"stdout": 1, "stderr": 2}
_CHUNK = 1 << 16


class Streams:
    """What one program has written so far; it is kept here, because the kernel returns each text once."""

    def __init__(self) -> None:
        self._texts = dict.fromkeys(_NUMBERS, "")

    def read(self, name: str, fd: int, on: str) -> str:
        """Returns all text of ``stdout`` or ``stderr`` of the program with that descriptor.

        Raises `UnsupportedError` if the kernel has no streams.
        """
        buffer = ffi.new("char[]", _CHUNK)
        attributes = pack(("Q", address(buffer)), ("I", _CHUNK), ("I", _NUMBERS[name]), ("I", fd))
        while True:
            try:
                size = bpf(BPF_PROG_STREAM_READ_BY_FD, attributes)
            except OSError as e:
                raise UnsupportedError(
                    f"cannot read the {name} of",
                    on=on,
                    why=f"this kernel has no streams of programs ({strerror(e.errno or 0)})",
                    fix="run it on Linux 6.17 or later, or use bpf_printk",
                    errno=e.errno,
                ) from None
            if not size:
                return self._texts[name]
            self._texts[name] += ffi.buffer(buffer, size)[:].decode(errors="replace")
