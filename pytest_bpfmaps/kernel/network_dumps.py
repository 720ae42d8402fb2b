"""Asks the kernel for XDP programs and tc filters of all interfaces: rtnetlink(7)."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_REQUEST, _DUMP = 1, 0x300  # NLM_F_*
_ERROR, _DONE = 2, 3  # NLMSG_*
_GETLINK, _GETQDISC, _GETTFILTER = 18, 38, 46  # RTM_*
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_TC = struct.Struct("=BxxxiIII")  # struct tcmsg
_ATTRIBUTE = struct.Struct("=HH")
_NAME, _PEER, _XDP = 3, 5, 43  # IFLA_IFNAME, IFLA_LINK, IFLA_XDP
# IFLA_XDP_DRV_PROG_ID, ..._SKB_..., ..._HW_..., with the words of ip(8) for the modes
_XDP_IDS = {5: "xdp", 6: "xdpgeneric", 7: "xdpoffload"}
_KIND, _OPTIONS, _BPF_ID = 1, 2, 11  # TCA_KIND, TCA_OPTIONS, TCA_BPF_ID
_PARENTS = {0xFFFFFFF2: "ingress", 0xFFFFFFF3: "egress"}  # of a clsact qdisc
_TYPE = 0x3FFF  # without NLA_F_NESTED
_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class NetworkProgram:
    """A program at an interface. `where` is ``xdp``, ``ingress`` or ``egress``.

    `word` is what ip(8) or tc(8) calls it: ``xdpgeneric``, ``pref 1 handle 0x1 bpf``.
    """

    program_id: int
    interface: str
    ifindex: int
    where: str
    word: str


def network_programs() -> list[NetworkProgram]:
    """Returns the XDP programs and the bpf filters of this thread's network namespace. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        links = list(_links(sock))
        names = {index: name for index, name, _ in links}
        found = [
            NetworkProgram(each, name, index, "xdp", word)
            for index, name, ids in links
            for each, word in sorted(ids.items())
        ]
        for index in sorted(set(_clsact(sock))):
            for parent, where in _PARENTS.items():
                ids = dict(_filters(sock, index, parent))
                name = names.get(index, f"ifindex {index}")
                found += [NetworkProgram(each, name, index, where, word) for each, word in ids.items()]
    return found


def interface_names() -> dict[int, str]:
    """Returns the names of this thread's interfaces by index."""
    return dict(socket.if_nameindex())


def interface_peers() -> dict[int, int]:
    """Returns the other ends of this thread's interfaces, both by index (``IFLA_LINK``)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        found = {}
        for body in _dump(sock, _GETLINK, _LINK.pack(0, 0, 0, 0, 0)):
            if peer := _attributes(body[_LINK.size :]).get(_PEER):
                found[_LINK.unpack_from(body)[2]] = int.from_bytes(peer, sys.byteorder)
        return found


def _links(sock: socket.socket) -> Iterator[tuple[int, str, dict[int, str]]]:
    for body in _dump(sock, _GETLINK, _LINK.pack(0, 0, 0, 0, 0)):
        attributes = _attributes(body[_LINK.size :])
        xdp = _attributes(attributes.get(_XDP, b""))
        given = {int.from_bytes(xdp.get(each, b""), sys.byteorder): word for each, word in _XDP_IDS.items()}
        ids = {number: word for number, word in given.items() if number}
        yield _LINK.unpack_from(body)[2], os.fsdecode(attributes[_NAME].rstrip(b"\0")), ids


def _clsact(sock: socket.socket) -> Iterator[int]:
    for body in _dump(sock, _GETQDISC, _TC.pack(0, 0, 0, 0, 0)):
        if _attributes(body[_TC.size :]).get(_KIND, b"").rstrip(b"\0") in (b"clsact", b"ingress"):
            yield _TC.unpack_from(body)[1]


def _filters(sock: socket.socket, index: int, parent: int) -> Iterator[tuple[int, str]]:
    for body in _dump(sock, _GETTFILTER, _TC.pack(0, index, 0, parent, 0)):
        attributes = _attributes(body[_TC.size :])
        options = _attributes(attributes.get(_OPTIONS, b""))
        if attributes.get(_KIND, b"").rstrip(b"\0") == b"bpf" and _BPF_ID in options:
            _, _, handle, _, info = _TC.unpack_from(body)
            word = f"pref {info >> 16} handle {handle:#x} bpf"  # TC_H_MAJ(info) is the preference
            yield int.from_bytes(options[_BPF_ID], sys.byteorder), word


def _dump(sock: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
    while True:
        data = sock.recv(_SIZE)
        at = 0
        while at < len(data):
            length, type_, *_ = _HEADER.unpack_from(data, at)
            if type_ == _DONE:
                return
            if type_ == _ERROR:
                number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                raise OSError(number, "netlink")
            yield data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, type_ = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[type_ & _TYPE] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found
