"""User ring buffers: records from a test to a program."""

from __future__ import annotations

import errno
from typing import Any, Self

from pytest_bpfmaps.btf import BytesCodec, Codec, Codecs
from pytest_bpfmaps.errors import ClosedError, MapError, NameLookupError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf import check_pointer, ffi, lib
from pytest_bpfmaps.libbpf.calls import failure, reason
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.info import MapInfo
from pytest_bpfmaps.maps.record_type import is_declared, struct_of_records

_DEFAULT_STRUCT = "command"


class UserRingBufMap(Map, types=(MapType.USER_RINGBUF,)):
    """``BPF_MAP_TYPE_USER_RINGBUF``: Linux 6.1, commit 583c1f420173. `max_entries` is its size in bytes.

    A program takes the records with ``bpf_user_ringbuf_drain()`` (commit 205715673844) when it runs. The
    kernel does not run a program because a record arrives.
    """

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        super().__init__(fd, info, codecs, **options)
        self._producer = _Producer()

    def send(self, value: Any, type: str | None = None) -> None:
        """Sends one record: `bytes` unchanged, or a value of the records' C type.

        `type` is the C struct's name; the default is the map's declared value type, or the struct named
        ``command``. Raises `MapError` with `ENOSPC` if programs have not drained enough records.
        """
        codec = None if isinstance(value, bytes | bytearray | memoryview) else self._codec(type)
        raw = bytes(value) if codec is None else codec.encode(value, f"record for map {self.name!r}")
        with self._reserve(len(raw), codec) as sample:
            sample.data[:] = raw

    def reserve(self, type: str | None = None, *, size: int | None = None) -> Sample:
        """Returns a record to fill in place, and then to `Sample.submit` or `Sample.discard`.

        As a context manager it is submitted at the end, or discarded if an exception leaves the block. `type`
        is as in `send`; `size` in bytes is for a record without a type. Raises `MapError` with `ENOSPC` if
        the buffer is full, and with `E2BIG` if it could never hold such a record.
        """
        if size is not None:
            return self._reserve(size, None)
        codec = self._codec(type)
        return self._reserve(codec.size, codec)

    def close(self) -> None:
        """Unmaps the buffer's memory and closes the descriptor. Safe to call again."""
        self._producer.close()
        super().close()

    def _reserve(self, size: int, codec: Codec | None) -> Sample:
        if self._producer.handle == ffi.NULL:
            made = lib.user_ring_buffer__new(self.fd, ffi.NULL)
            self._producer.handle = check_pointer(made, MapError, "cannot map the memory of", on=str(self))
        pointer = lib.user_ring_buffer__reserve(self._producer.handle, size)
        number = ffi.errno
        if pointer != ffi.NULL:
            return Sample(self, self._producer, pointer, size, codec)
        what, on = f"cannot reserve {size} bytes", f"in {self}"
        why, fix = None, None
        if number == errno.ENOSPC:
            why = f"it is full: no program has drained the records ({reason(number)})"
            fix = "run the program that calls bpf_user_ringbuf_drain(), or make max_entries larger"
        elif number == errno.E2BIG:
            why = f"it has {self.max_entries} bytes, and a record's header takes 8 of them ({reason(number)})"
            fix = "make max_entries larger: a power of two, and a multiple of the page size"
        raise failure(number, MapError, what, on=on, **({"why": why, "fix": fix} if why else {}))

    def _codec(self, type: str | None) -> Codec:
        if type is None and is_declared(self._value):
            return self._value
        if self._codecs is None:
            why, fix = "there are no types for it", "send bytes"
            raise NameLookupError("cannot encode a record for", on=str(self), why=why, fix=fix)
        return struct_of_records(
            self._codecs,
            type,
            _DEFAULT_STRUCT,
            what="cannot tell the type of the records for",
            on=str(self),
            how="send(value, 'my_struct'), or send bytes",
        )


class _Producer:
    """libbpf's ``struct user_ring_buffer *``; NULL while the buffer's memory is not mapped."""

    def __init__(self) -> None:
        self.handle: Any = ffi.NULL

    def close(self) -> None:
        """Unmaps the memory. Safe to call again."""
        handle, self.handle = self.handle, ffi.NULL
        if handle != ffi.NULL:
            lib.user_ring_buffer__free(handle)


class Sample:
    """A record in a user ring buffer that no program can see yet. `data` is its memory, writable."""

    def __init__(
        self, ring: UserRingBufMap, producer: _Producer, pointer: Any, size: int, codec: Codec | None
    ) -> None:
        self._ring = ring
        self._producer = producer
        self._pointer = pointer
        self._codec = codec
        self._view = memoryview(ffi.buffer(pointer, size)).cast("B")

    @property
    def data(self) -> memoryview:
        """The record's bytes. Raises `ClosedError` after it is submitted or discarded."""
        self._check_open()
        return self._view

    def write(self, value: Any) -> None:
        """Fills the record with a value of its C type, or with as many bytes as it has."""
        codec = self._codec or BytesCodec(f"{len(self.data)} bytes", len(self.data))
        self.data[:] = codec.encode(value, f"record for map {self._ring.name!r}")

    def submit(self) -> None:
        """Makes the record visible to programs."""
        self._finish(lib.user_ring_buffer__submit)

    def discard(self) -> None:
        """Drops the record; programs skip it."""
        self._finish(lib.user_ring_buffer__discard)

    def _finish(self, how: Any) -> None:
        self._check_open()
        pointer, self._pointer = self._pointer, ffi.NULL
        self._view.release()
        how(self._producer.handle, pointer)

    def _check_open(self) -> None:
        if ffi.NULL in (self._pointer, self._producer.handle):
            why = "it is submitted or discarded" if self._pointer == ffi.NULL else "its map is closed"
            raise ClosedError("cannot use a record of", on=str(self._ring), why=why)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._pointer != ffi.NULL:
            self.submit() if kind is None else self.discard()
