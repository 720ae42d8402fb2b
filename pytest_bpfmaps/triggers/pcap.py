"""Reads and writes captures: files of packets, in the format of libpcap (pcap-savefile(5))."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from pytest_bpfmaps.errors import TriggerError

ETHERNET = 1  # LINKTYPE_ETHERNET, https://www.tcpdump.org/linktypes.html
_NAMES = {
    0: "NULL",
    101: "RAW",
    105: "IEEE802_11",
    113: "LINUX_SLL",
    228: "IPV4",
    229: "IPV6",
    276: "LINUX_SLL2",
}
_MICROSECONDS, _NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
_PCAPNG = 0x0A0D0D0A
_SNAPLEN = 1 << 18
_LARGEST = 1 << 28  # bytes of a packet; more is no length


class Frame(NamedTuple):
    """A packet of a capture: its bytes, and when it was seen, in seconds since 1970 (0: not known)."""

    data: bytes
    time: float = 0.0


def write_pcap(path: str | os.PathLike[str], frames: Iterable[Frame]) -> None:
    """Writes Ethernet frames into the file `path`. Raises OSError."""
    with open(path, "wb") as file:
        file.write(pcap_bytes(frames))


def pcap_bytes(frames: Iterable[Frame]) -> bytes:
    """Returns the content of a capture with these Ethernet frames, with times in nanoseconds."""
    made = [struct.pack("<IHHiIII", _NANOSECONDS, 2, 4, 0, 0, _SNAPLEN, ETHERNET)]
    for data, time in frames:
        seconds, nanoseconds = divmod(round(time * 1e9), 10**9)
        made += [struct.pack("<IIII", seconds, nanoseconds, len(data), len(data)), bytes(data)]
    return b"".join(made)


def read_pcap(path: str | os.PathLike[str]) -> list[Frame]:
    """Returns the Ethernet frames of a capture, in order.

    Raises OSError if it can't be read, and `TriggerError` if it is no capture of whole Ethernet frames.
    """
    with open(path, "rb") as file:
        return _read(file, os.fspath(path))


def _read(file: BinaryIO, path: str) -> list[Frame]:
    head = file.read(24)
    if len(head) >= 4 and int.from_bytes(head[:4], "little") == _PCAPNG:
        raise _refusal(
            path, "it is a pcapng file", f"tcpdump -r {path} -w NEW, or editcap -F pcap {path} NEW"
        )
    order = next(
        (o for o in "<>" if len(head) == 24 and struct.unpack_from(f"{o}I", head)[0] in _UNITS), None
    )
    if order is None:
        raise _refusal(
            path, "it does not begin as a capture does", "write it by tcpdump -w, or by Wireshark as pcap"
        )
    unit = _UNITS[struct.unpack_from(f"{order}I", head)[0]]
    link = struct.unpack_from(f"{order}I", head, 20)[0] & 0xFFFF
    if link != ETHERNET:
        name = _NAMES.get(link, str(link))
        fix = "capture at one Ethernet interface (tcpdump -i eth0), not at 'any' or a tunnel"
        raise _refusal(path, f"its packets begin with a header of type {name}, not with Ethernet's", fix)
    frames: list[Frame] = []
    while record := file.read(16):
        if len(record) < 16:
            raise _cut(path, len(frames))
        seconds, fraction, kept, length = struct.unpack(f"{order}IIII", record)
        data = file.read(kept) if kept <= _LARGEST else b""
        if len(data) < kept:
            raise _cut(path, len(frames))
        if kept < length:
            why = f"packet {len(frames) + 1} has {kept} of its {length} bytes"
            raise _refusal(path, why, "capture whole packets: tcpdump -s 0")
        frames.append(Frame(data, seconds + fraction * unit))
    return frames


_UNITS = {_MICROSECONDS: 1e-6, _NANOSECONDS: 1e-9}


def _cut(path: str, whole: int) -> TriggerError:
    fix = "end the capture by SIGINT and write it again, or keep the whole packets: tcpdump -r FILE -w NEW"
    return _refusal(path, f"it is cut off in packet {whole + 1}", fix)


def _refusal(path: str, why: str, fix: str) -> TriggerError:
    return TriggerError("cannot read packets", on=f"from {path}", why=why, fix=fix)
