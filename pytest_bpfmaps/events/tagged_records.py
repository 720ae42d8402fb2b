"""Decodes records of several types in one buffer: a field that all types have determines the type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_bpfmaps.btf import Codec, Codecs
from pytest_bpfmaps.btf.absent_fields import shortened
from pytest_bpfmaps.btf.codec import Buffer
from pytest_bpfmaps.errors import MapValueError, NameLookupError, NoValueError
from pytest_bpfmaps.events.record_fields import field_at


class TaggedCodec(Codec):
    """Decodes a record with the struct for its tag; see `tagged_codec`."""

    flexible = True  # each record is passed with all its bytes

    def __init__(self, by_tag: Mapping[Any, Any], tag: str) -> None:
        first = field_at(next(iter(by_tag.values())), tag)
        self.name = f"records told apart by {tag!r}"
        self.size = first.offset + first.codec.size
        self.by_name = {name: field for codec in by_tag.values() for name, field in codec.by_name.items()}
        self.structs = tuple(by_tag.values())
        self._tag = first
        self._name = tag
        self._by_tag = dict(by_tag)

    def decode_padded(self, data: Buffer, padding: int) -> Any:
        """Decodes a record; up to `padding` of its last bytes may not come from the program."""
        if len(data) < self.size:
            raise NoValueError(
                f"cannot read a record of {len(data)} bytes",
                why=f"its tag {self._name!r} ends at byte {self.size}",
                fix="send the tag with each record",
            )
        tag = self._tag.decode(data, 0)
        codec = self._by_tag.get(tag)
        if codec is None:
            codec = self._by_tag.get(getattr(tag, "name", None))
        if codec is None:
            known = ", ".join(f"{t!r}: {c.name}" for t, c in self._by_tag.items())
            raise MapValueError(
                f"cannot read a record whose {self._name} is {tag!r}",
                why="no struct is given for it",
                fix=f"capture({{{tag!r}: …}}, tag={self._name!r}); given are {known}",
            )
        if len(data) < codec.size:
            codec = shortened(codec, len(data), padding)
        return codec.decode_rest(data, 0)


def tagged_codec(types: Mapping[Any, str], tag: str | None, codecs: Codecs | None, on: str) -> TaggedCodec:
    """Returns the codec for ``capture({0: "open_event", "EXIT": "exit_event"}, tag="kind")``.

    Keys are values of the tag, or names of its enum. The tag may be in a nested struct: ``tag="hdr.kind"``.
    Raises `NameLookupError` for a struct that does not exist or has no such field, and `MapValueError` if the
    structs have the tag at different offsets.
    """
    if codecs is None:
        raise NameLookupError("cannot decode the records of", on=on, why="there is no BTF")
    by_tag: dict[Any, Any] = {value: codecs.struct(name) for value, name in types.items()}
    if not by_tag or tag is None:
        raise MapValueError(
            "cannot tell records apart",
            on=f"from {on}",
            why="no tag is named" if by_tag else "no struct is given",
            fix='capture({0: "open_event", 1: "exit_event"}, tag="kind")',
        )
    fields = {value: field_at(codec, tag) for value, codec in by_tag.items()}
    places = {(f.offset, f.codec.size): by_tag[value].name for value, f in fields.items()}
    if len(places) > 1:
        raise MapValueError(
            f"cannot tell records apart by {tag!r}",
            on=f"from {on}",
            why="the structs have it at different offsets: "
            + ", ".join(f"{name} at {offset}, {size} bytes" for (offset, size), name in places.items()),
            fix="make it the first field of each struct",
        )
    return TaggedCodec(by_tag, tag)
