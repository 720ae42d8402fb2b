"""``BPF_MAP_TYPE_RINGBUF`` as a map (Linux 5.8, commit 457f44363a88)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_bpfmaps.btf import Codec, Codecs, RecordBytesCodec
from pytest_bpfmaps.errors import NameLookupError
from pytest_bpfmaps.events.buffer import RecordSource
from pytest_bpfmaps.events.capture import Capture
from pytest_bpfmaps.events.ringbuf_reader import Ring
from pytest_bpfmaps.events.ringbuf_tap import Tap
from pytest_bpfmaps.events.shared_reader import SharedSource
from pytest_bpfmaps.events.tagged_records import tagged_codec
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.record_type import is_declared, struct_of_records

RecordType = str | type[bytes] | Mapping[Any, str] | None
"""A C struct's name, `bytes` for undecoded records, or a name for each value of a tag."""

_RB_OVERWRITE = 1 << 19
DEFAULT_STRUCT = "event"


class RingBufMap(Map, types=(MapType.RINGBUF,)):
    """A ring buffer. `max_entries` is its size in bytes."""

    read_elsewhere = False
    """Whether another process reads it, so that a capture is a tap by default."""

    def capture(self, type: RecordType = None, *, tag: str | None = None, tap: bool | None = None) -> Capture:
        """Collects the records that programs submit from now on; use it with ``with``.

        `type` is the C struct of the records. If it is left out, it is the map's declared value type, or the
        struct named ``event``. `bytes` leaves the records undecoded. If there are several types, a field that
        all of them have determines the type: ``capture({0: "open_event", 1: "exit_event"}, tag="kind")``.
        A `tap` copies the records and leaves them to the process that reads them; this is the default for
        the maps of `Bpf.start`. Else the capture takes them out of the buffer. What was overwritten before
        the tap could copy it is counted in `Capture.missed`. Raises `NameLookupError` if a struct does not
        exist.
        """
        codec = record_codec(type, tag, self._value, self._codecs, str(self))
        overwrites = bool(self.flags & _RB_OVERWRITE)
        is_tap = self.read_elsewhere if tap is None else tap

        def open_buffer() -> RecordSource:
            if is_tap:
                return Tap(self.fd, self.max_entries, str(self), overwrites=overwrites)
            return Ring(self.fd, self.max_entries, str(self), self.id, overwrites=overwrites)

        source = SharedSource(self.id, open_buffer, is_tap=is_tap)
        return Capture(source, codec, str(self), self.id)


def record_codec(
    type: RecordType, tag: str | None, declared: Codec, codecs: Codecs | None, the_map: str
) -> Codec:
    """Returns the codec of the records of a map.

    `the_map` is its name in messages. `declared` is its declared value type.
    """
    if isinstance(type, Mapping):
        return tagged_codec(type, tag, codecs, the_map)
    if tag is not None:
        raise NameLookupError(
            f"cannot tell records apart by {tag!r}",
            on=f"from {the_map}",
            why=f"one struct is given: {type!r}",
            fix='give one for each value of the tag: capture({0: "open_event", 1: "exit_event"}, tag="kind")',
        )
    if type is bytes:
        return RecordBytesCodec()
    if type is None and is_declared(declared):
        return declared
    if codecs is None:
        raise NameLookupError(
            "cannot decode the records of",
            on=the_map,
            why="there is no BTF",
            fix="compile with 'clang -g'",
        )
    return struct_of_records(
        codecs,
        None if type is None else str(type),
        DEFAULT_STRUCT,
        what="cannot tell the type of the records of",
        on=the_map,
        how="capture('my_struct'), or capture(bytes)",
    )
