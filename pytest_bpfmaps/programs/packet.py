"""The packet that a run of a program gives back, and how it differs from another one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import groupby
from typing import Any

_SHOWN = 24  # bytes of a packet that are shown where Scapy is not installed


class Packet(bytes):
    """The bytes of a packet, which begin with its Ethernet header.

    They are equal to any equal bytes, and to anything whose `bytes()` are equal, such as Scapy's packets.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        theirs = bytes_of(other)
        return NotImplemented if theirs is None else bytes(self) == theirs

    def __ne__(self, other: object) -> bool:
        theirs = bytes_of(other)
        return NotImplemented if theirs is None else bytes(self) != theirs

    __hash__ = bytes.__hash__

    def summary(self) -> str:
        """Returns the packet in one line: as Scapy shows it, or without Scapy its length and first bytes."""
        layers = dissect(self)
        more = "…" if len(self) > _SHOWN else ""
        shown = layers.summary() if layers is not None else self[:_SHOWN].hex(" ", -4) + more
        return f"{len(self)} bytes: {shown}" if self else "no bytes"


def bytes_of(value: object) -> bytes | None:
    """Returns the bytes of what can be a packet: bytes, or an object with `bytes()`. None for all else."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not hasattr(type(value), "__bytes__") or isinstance(value, os.PathLike | type):
        return None
    with contextlib.suppress(Exception):  # Scapy raises many kinds for a packet that it can't build
        return bytes(value)  # type: ignore[call-overload,no-any-return]
    return None


def dissect(data: bytes) -> Any:
    """Returns Scapy's packet; None where Scapy is not installed, or can't read these bytes."""
    with contextlib.suppress(Exception):  # Scapy raises many kinds for a packet that is cut off
        from scapy.layers import inet, inet6  # noqa: F401 - Ethernet's payloads
        from scapy.layers.l2 import Ether

        return Ether(bytes(data))
    return None


def differences(mine: bytes, theirs: bytes) -> Iterator[str]:
    """Yields a line for each difference: lengths, layers and their fields, or else bytes by their offset."""
    if len(mine) != len(theirs):
        yield f"{len(mine)} bytes, expected {len(theirs)}"
    ours, others = dissect(mine), dissect(theirs)
    fields = list(_fields(ours, others)) if ours is not None and others is not None else []
    yield from fields or _offsets(mine, theirs)


def _fields(ours: Any, others: Any) -> Iterator[str]:
    names = [[layer.__name__ for layer in packet.layers()] for packet in (ours, others)]
    if names[0] != names[1]:
        yield f"layers: {' / '.join(names[0])}, expected {' / '.join(names[1])}"
    for at, (one, two) in enumerate(zip(*names, strict=False)):
        if one != two:
            return
        layer, other = ours.getlayer(at), others.getlayer(at)
        for field in layer.fields_desc:
            values = [each.getfieldval(field.name) for each in (layer, other)]
            if values[0] != values[1]:
                shown = (
                    field.i2repr(each, value) for each, value in zip((layer, other), values, strict=True)
                )
                yield f"{one}.{field.name}: {', expected '.join(map(str, shown))}"


def _offsets(mine: bytes, theirs: bytes) -> Iterator[str]:
    places = [at for at in range(min(len(mine), len(theirs))) if mine[at] != theirs[at]]
    for _, run in groupby(enumerate(places), lambda each: each[1] - each[0]):
        found = [place for _, place in run]
        start, stop = found[0], found[-1] + 1
        where = f"byte {start}" if stop == start + 1 else f"bytes {start} to {stop - 1}"
        yield f"{where}: {mine[start:stop].hex(' ', -4)}, expected {theirs[start:stop].hex(' ', -4)}"
