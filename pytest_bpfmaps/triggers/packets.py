"""Sends and receives whole frames by packet(7) sockets."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, overload

from pytest_bpfmaps.errors import CaptureTimeoutError
from pytest_bpfmaps.kernel.release import shown_timeout, timeout_scale
from pytest_bpfmaps.triggers.pcap import Frame, write_pcap

# <linux/if_ether.h>, <linux/if_packet.h>, <asm/socket.h>
_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_STATISTICS, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 6, 8, 23
_SO_RCVBUFFORCE = 33
_TP_STATUS_VLAN_VALID = 1 << 4
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_BUFFER = 8 << 20  # bytes that the kernel keeps for us
_LARGEST = 1 << 18  # bytes of the largest frame
_MAC_PAIR = 12  # bytes; a VLAN tag comes after them

Match = Callable[[Any], object]


def open_packet_socket(interface: str, *, receive: bool, outgoing: bool = False) -> socket.socket:
    """Opens a raw packet socket on an interface of this thread's namespace.

    With `outgoing` it receives outgoing frames, too; else ``PACKET_IGNORE_OUTGOING`` hides them (Linux 4.20).
    """
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        if receive:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, not outgoing)
            made.setblocking(False)
        # It receives from now on: from this interface alone, and no frame that came before.
        made.bind((interface, _ETH_P_ALL if receive else 0))
    except BaseException:
        made.close()
        raise
    return made


class Sniffer(Sequence[Any]):
    """The frames that an interface saw, in order. The sequence grows until it is closed.

    The kernel collects up to 8 MiB of frames, so none is missed between two looks. Programs come first: a
    frame that XDP or tc ingress drops is not here. `packet` makes an object of each frame's bytes.
    """

    def __init__(self, from_socket: socket.socket, on: str, packet: Callable[[bytes], Any]) -> None:
        self._socket = from_socket
        self._on = self.on = on
        self._packet = packet
        self._seen: list[Any] = []
        self._lost = 0

    def wait(self, count: int = 1, timeout: float = 1.0, match: Match | None = None) -> list[Any]:
        """Waits for `count` frames for which `match` is true (default: any frames), and returns them.

        `timeout` is in seconds; it is longer where the CPU is emulated. Raises `CaptureTimeoutError`, an
        `AssertionError` that shows what came instead.
        """
        deadline = time.monotonic() + timeout * timeout_scale()
        while True:
            found = [p for p in self if match is None or match(p)]
            if len(found) >= count:
                return found[:count]
            if not self._poll(deadline - time.monotonic()):
                break
        raise CaptureTimeoutError(
            f"waited {shown_timeout(timeout)} for {count} packet{'s' * (count != 1)} at",
            on=self._on,
            why=f"{len(found)} came" if match is None else f"{len(found)} of {len(self._seen)} fit",
            details="\n".join(f"  {_show(p)}" for p in self._seen[:20]) or None,
        )

    def expect_none(self, *, within: float = 0.1, match: Match | None = None) -> None:
        """Waits `within` seconds. Raises `CaptureTimeoutError` as soon as a frame comes that `match` fits."""
        deadline = time.monotonic() + within
        while True:
            found = [p for p in self if match is None or match(p)]
            if found:
                raise CaptureTimeoutError(
                    "expected no packet at", on=self._on, why=f"one came: {_show(found[0])}"
                )
            if not self._poll(deadline - time.monotonic()):
                return

    def write_pcap(self, path: str | os.PathLike[str]) -> None:
        """Writes the frames so far into a capture, for tcpdump and Wireshark.

        Their times are not known: all are 0. Raises OSError.
        """
        write_pcap(path, (Frame(bytes(packet)) for packet in self))

    @property
    def lost(self) -> int:
        """How many frames the kernel dropped because there was no room for them."""
        if self._socket.fileno() >= 0:  # reading the counter resets it
            raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self._lost += struct.unpack("=II", raw)[1]
        return self._lost

    def close(self) -> None:
        """Reads the frames that have arrived, and listens no more. The frames stay. Safe to call again."""
        if self._socket.fileno() >= 0:
            self._drain()
            self._lost = self.lost
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __len__(self) -> int:
        self._drain()
        return len(self._seen)

    def __iter__(self) -> Iterator[Any]:
        self._drain()
        return iter(list(self._seen))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        self._drain()
        return self._seen[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} packets at {self._on}>"

    def _poll(self, seconds: float) -> bool:
        """Waits until there is something to read. Returns False when the time is over."""
        if self._socket.fileno() < 0 or seconds <= 0:
            return False
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        return bool(ready.poll(seconds * 1000))

    def _drain(self) -> None:
        if self._socket.fileno() < 0:
            return
        while True:
            try:
                data, extra, _flags, _from = self._socket.recvmsg(_LARGEST, 256)
            except BlockingIOError:
                return
            self._seen.append(self._packet(_with_vlan(data, extra)))


def _with_vlan(data: bytes, extra: list[tuple[int, int, bytes]]) -> bytes:
    """Returns the frame as it was on the wire. The kernel passes its VLAN tag separately."""
    for level, kind, raw in extra:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA and len(raw) >= _AUXDATA.size:
            status, *_, tci, tpid = _AUXDATA.unpack_from(raw)
            if status & _TP_STATUS_VLAN_VALID:
                return data[:_MAC_PAIR] + struct.pack("!HH", tpid or 0x8100, tci) + data[_MAC_PAIR:]
    return data


def _show(packet: Any) -> str:
    if hasattr(packet, "summary"):  # Scapy's
        return str(packet.summary())
    raw = bytes(packet)
    return f"{len(raw)} bytes: {raw[:64].hex(' ', 2)}{' …' if len(raw) > 64 else ''}"
