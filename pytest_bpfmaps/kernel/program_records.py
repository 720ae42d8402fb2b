"""Reads the kernel's records of programs that are loaded or freed, in the ring buffer of a perf event.

``PERF_RECORD_BPF_EVENT``: Linux 5.1, commit 6ee52e2a3fe4. Source: perf_event_open(2).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

from pytest_bpfmaps.libbpf import ffi
from pytest_bpfmaps.libbpf.syscalls import perf_event_open

PAGES = 16  # pages of each ring buffer after the first one; a power of two
LOST_RECORD, KSYMBOL_RECORD, BPF_RECORD = 2, 17, 18
LOADED, ENDED = 1, 2  # PERF_BPF_EVENT_PROG_LOAD, _UNLOAD
DISABLED, INHERIT, WATERMARK, SAMPLE_ID, KSYMBOL, BPF_EVENT = 1, 1 << 1, 1 << 14, 1 << 18, 1 << 29, 1 << 30
TID = 1 << 1  # PERF_SAMPLE_TID: each record ends with the process and the thread that it is of
_SOFTWARE, _DUMMY = 1, 9  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY
_HEAD, _TAIL = 0x400, 0x408  # offsets in struct perf_event_mmap_page
_LARGEST = 256  # bytes of a record, more than the kernel writes here


def open_event(cpu: int, flags: int, *, pid: int = -1, sample_type: int = 0) -> int:
    """Opens a perf event that counts nothing, and returns its descriptor. Raises `OSError`.

    `flags` are bits of ``perf_event_attr``. `pid` is a process; 0 is the caller, -1 any.
    """
    attributes = {"type": _SOFTWARE, "config": _DUMMY, "sample_type": sample_type, "_flags": flags}
    attributes |= {"size": ffi.sizeof("struct perf_event_attr"), "wakeup_events": int(flags & WATERMARK > 0)}
    return perf_event_open(ffi.new("struct perf_event_attr *", attributes), pid, cpu)


class Ring:
    """The records of one CPU. Raises OSError when the kernel has none.

    `flags` and `sample_type` are those of `open_event`.
    """

    def __init__(self, cpu: int, flags: int, sample_type: int = 0) -> None:
        self.fd = open_event(cpu, flags, sample_type=sample_type)
        self._page = mmap.PAGESIZE
        try:
            self._map = mmap.mmap(self.fd, self._page * (1 + PAGES))
        except OSError:
            os.close(self.fd)
            raise

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Gives type and content of each record since the last time.

        A `LOST_RECORD` says that there was no room; the kernel writes it before the next record, so one that
        may still be missing is made up here.
        """
        head = struct.unpack_from("=Q", self._map, _HEAD)[0]
        tail = struct.unpack_from("=Q", self._map, _TAIL)[0]
        if head - tail > self._page * PAGES - _LARGEST:
            yield LOST_RECORD, b""
        while tail < head:
            kind, _, size = struct.unpack("=IHH", self._read(tail, 8))
            yield kind, self._read(tail + 8, size - 8)
            tail += size
        struct.pack_into("=Q", self._map, _TAIL, tail)

    def _read(self, at: int, size: int) -> bytes:
        start = at % (self._page * PAGES)
        data = self._map[self._page + start : self._page + min(start + size, self._page * PAGES)]
        return data + self._map[self._page : self._page + size - len(data)]

    def close(self) -> None:
        """Unmaps the records, and closes the event. Safe to call again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._map.close()
            os.close(fd)
