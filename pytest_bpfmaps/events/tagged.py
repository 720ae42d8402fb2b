"""Records of several types in one buffer, told apart by a field that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..btf import Codec, Codecs
from ..btf.codec import Buffer
from ..errors import MapValueError, NameLookupError, closest


class TaggedCodec(Codec):
    """Decodes a record by the struct that its tag stands for; see `tagged_codec`."""

    flexible = True  # so that each record comes with all its bytes

    def __init__(self, by_tag: Mapping[Any, Any], tag: str) -> None:
        first = next(iter(by_tag.values())).by_name[tag]
        self.name = "tagged by " + tag
        self.size = first.offset + first.codec.size
        self.by_name = {name: field for codec in by_tag.values() for name, field in codec.by_name.items()}
        self._tag = first
        self._by_tag = dict(by_tag)

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        tag = self._tag.decode(data, offset)
        codec = self._by_tag.get(tag)
        if codec is None:
            codec = self._by_tag.get(getattr(tag, "name", None))
        if codec is None:
            known = ", ".join(f"{t!r}: {c.name}" for t, c in self._by_tag.items())
            raise MapValueError(
                f"cannot read a record whose {self._tag.name} is {tag!r}",
                why="no struct is given for it",
                fix=f"capture({{{tag!r}: …}}, tag={self._tag.name!r}); given are {known}",
            )
        if len(data) - offset < codec.size:
            raise MapValueError(
                f"cannot read a record of {len(data) - offset} bytes",
                why=f"its {self._tag.name} is {tag!r}, and {codec.name} has {codec.size}",
                fix="submit the whole struct, and set its tag",
            )
        return codec.decode_rest(data, offset)


def tagged_codec(types: Mapping[Any, str], tag: str | None, codecs: Codecs | None, on: str) -> TaggedCodec:
    """For ``capture({0: "open_event", "EXIT": "exit_event"}, tag="kind")``.

    Keys are values of the tag, or names of its enum. Raises `NameLookupError` for a struct that is not there
    or has no such field, `MapValueError` when the structs disagree on where the tag is.
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
    for codec in by_tag.values():
        if tag not in codec.by_name:
            raise NameLookupError(
                f"no field {tag!r}", on=f"in {codec.name}", fix=closest(tag, (f.name for f in codec.fields))
            )
    places = {(c.by_name[tag].offset, c.by_name[tag].codec.size): c.name for c in by_tag.values()}
    if len(places) > 1:
        raise MapValueError(
            f"cannot tell records apart by {tag!r}",
            on=f"from {on}",
            why="the structs have it at different places: "
            + ", ".join(f"{name} at {offset}, {size} bytes" for (offset, size), name in places.items()),
            fix="make it the first field of each struct",
        )
    return TaggedCodec(by_tag, tag)
