"""``BPF_MAP_TYPE_PERF_EVENT_ARRAY`` as a source of records (Linux 4.4, commit ea317b267e9d).

Each CPU has its own ring. Records have the time at which they were made, so that records of several CPUs can
be sorted. libbpf reads the rings: perf_buffer__new_raw().
"""

from __future__ import annotations

import errno
import os
import select
import struct
from typing import Any

from pytest_bpfmaps.errors import MapError, UnsupportedError
from pytest_bpfmaps.events.capture import Capture
from pytest_bpfmaps.events.ringbuf import RecordType, record_codec
from pytest_bpfmaps.events.shared_reader import SharedSource
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.map_holders import holders_of_map
from pytest_bpfmaps.kernel.open_resources import forget, note
from pytest_bpfmaps.libbpf import check, check_pointer, ffi, lib, opts
from pytest_bpfmaps.maps.base import Map

PAGES = 64
"""Size of each CPU's ring, in pages; a power of two."""

_RECORD_LOST, _RECORD_SAMPLE = 2, 9
_CONTINUE = -2  # LIBBPF_PERF_EVENT_CONT
_SOFTWARE, _BPF_OUTPUT = 1, 10  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT
_FORMAT_LOST = 1 << 4
_COUNTS = struct.Struct("=QQ")  # read from a ring's descriptor: value, number of lost records
_SAMPLE_TIME, _SAMPLE_RAW = 1 << 2, 1 << 10
_USE_CLOCKID, _CLOCK_MONOTONIC = 1 << 25, 1
_SAMPLE = struct.Struct("=QI")  # after the header: time in nanoseconds, size of the data
_LOST = struct.Struct("=QQ")  # after the header: id, number of records


class PerfBuffer:
    """The consumer's end of a perf event array."""

    times_full = 0  # the kernel counts lost records
    taken = overwritten = missed = 0
    padding = 7  # the kernel rounds a record, with the 4 bytes of its size, up to a multiple of 8

    def __init__(self, fd: int, on: str, map_id: int, pages: int = PAGES) -> None:
        self._lost = 0
        self._map_id = map_id
        self._records: list[tuple[int, bytes]] = []
        self._error: BaseException | None = None
        # The buffer calls this until the buffer is freed. cffi needs a reference to it until then.
        self._callback = ffi.callback("int(void *, int, struct perf_event_header *)", self._on_event)
        attributes = ffi.new(
            "struct perf_event_attr *",
            {
                "type": _SOFTWARE,
                "size": ffi.sizeof("struct perf_event_attr"),
                "config": _BPF_OUTPUT,
                "sample_period": 1,
                "sample_type": _SAMPLE_TIME | _SAMPLE_RAW,
                "read_format": _FORMAT_LOST,
                "wakeup_events": 1,
                "_flags": _USE_CLOCKID,
                "clockid": _CLOCK_MONOTONIC,
            },
        )
        settings = opts("perf_buffer_raw_opts")
        handle = lib.perf_buffer__new_raw(fd, pages, attributes, self._callback, ffi.NULL, settings)
        if handle == ffi.NULL and ffi.errno == errno.EINVAL:
            attributes.read_format = 0
            handle = lib.perf_buffer__new_raw(fd, pages, attributes, self._callback, ffi.NULL, settings)
        self._tells = bool(attributes.read_format)
        self._handle: Any = check_pointer(
            handle,
            MapError,
            "cannot open the perf buffers of",
            on=on,
            fix="run with CAP_PERFMON, on a kernel that allows perf_event_open(2)",
        )
        self._poll = select.epoll()
        self._ready = int(lib.perf_buffer__epoll_fd(self._handle))
        self._poll.register(self._ready, select.EPOLLIN)
        note(f"capture of {on}", [self._ready])

    @property
    def lost(self) -> int:
        """The number of records for which a ring had no room.

        Before Linux 6.0 (commit 119a784c8127) the kernel reports them with the next record that has room.
        """
        if self._tells and self._handle != ffi.NULL:
            rings = range(lib.perf_buffer__buffer_cnt(self._handle))
            fds = [lib.perf_buffer__buffer_fd(self._handle, ring) for ring in rings]
            self._lost = sum(_COUNTS.unpack(os.read(fd, _COUNTS.size))[1] for fd in fds)
        return self._lost

    def drain(self) -> list[bytes]:
        """Takes the records of all CPUs out of the rings, and returns them in order of time."""
        if self._handle != ffi.NULL:
            check(lib.perf_buffer__consume(self._handle), MapError, "cannot read a perf buffer")
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        found, self._records = self._records, []
        found.sort(key=lambda record: record[0])
        return [data for _, data in found]

    def others(self) -> str | None:
        """Returns a sentence about processes that have this array and any perf events open.

        The kernel does not say which array the perf events belong to.
        """
        readers = [h for h in holders_of_map(self._map_id) if h.perf_events]
        if not readers:
            return None
        who = " and ".join(map(str, readers))
        return f"{who} may have put perf buffers there, too, and only the last one gets the records"

    def wait(self, seconds: float) -> None:
        """Sleeps until a record is there, for at most `seconds`."""
        self._poll.poll(max(seconds, 0))

    def close(self) -> None:
        """Frees the rings. Safe to call again."""
        _ = self.lost  # reads the number one last time, which is kept
        handle, self._handle = self._handle, ffi.NULL
        if handle != ffi.NULL:
            self._poll.close()
            forget(self._ready)
            lib.perf_buffer__free(handle)

    def _on_event(self, _context: Any, _cpu: int, event: Any) -> int:
        try:
            raw = ffi.buffer(event, event.size)
            if event.type == _RECORD_SAMPLE:
                time, size = _SAMPLE.unpack_from(raw, 8)
                at = 8 + _SAMPLE.size
                self._records.append((time, raw[at : at + size]))
            elif event.type == _RECORD_LOST:
                self._lost += 0 if self._tells else _LOST.unpack_from(raw, 8)[1]
        except BaseException as e:  # an exception must not pass through C; drain raises it
            self._error = e
        return _CONTINUE


class PerfEventArrayMap(Map, types=(MapType.PERF_EVENT_ARRAY,)):
    """A perf event array; programs write to it with ``bpf_perf_event_output``."""

    read_elsewhere = False
    """Whether another process reads it. A capture would take the records away from that process."""

    def capture(self, type: RecordType = None, *, tag: str | None = None, pages: int = PAGES) -> Capture:
        """Collects the records that programs output from now on; use it with ``with``.

        `type` and `tag` are as for a ring buffer. `pages` is the size of each CPU's ring; it has an effect if
        no other capture of the array is open. Outside of a capture the kernel has no rings for records, and
        the program's call fails with ``ENOENT``. Raises `UnsupportedError` for an array of another process
        that `Bpf.start` started: it has rings of its own, and only one ring of each CPU gets records.
        """
        if self.read_elsewhere:
            raise UnsupportedError(
                "cannot capture the records of",
                on=str(self),
                why="the agent has perf buffers there, and new ones would take the records away from it; "
                "a perf buffer can't be read beside its reader",
                fix="assert on what the agent makes of them: agent.wait_for_output(…), or a map that counts; "
                "or let the program use a ring buffer (Linux 5.8); or take them away from "
                f"the agent: bpf.map_by_id({self.id}).capture(…)",
            )
        codec = record_codec(type, tag, self._value, self._codecs, str(self))
        source = SharedSource(self.id, lambda: PerfBuffer(self.fd, str(self), self.id, pages))
        return Capture(source, codec, str(self), self.id)
