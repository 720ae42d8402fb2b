"""Maps of sockets: for redirection, for steering, for AF_XDP."""

from __future__ import annotations

import errno
import socket
from typing import Any, ClassVar

from pytest_bpfmaps.errors import ENOTSUPP
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.maps.references import Reference, ReferenceMap

_SO_COOKIE = 57  # <asm-generic/socket.h>


class SocketCookie(Reference):
    """A socket's cookie, which no other socket gets until the next boot; it equals that socket object."""

    noun = "socket cookie"

    def number_of(self, other: Any) -> int | None:
        """Returns the cookie of a socket (``SO_COOKIE``, Linux 4.12, commit 5daab9db7b65)."""
        return socket_cookie(other) if isinstance(other, socket.socket) else None


def socket_cookie(sock: socket.socket) -> int:
    """Returns the number by which the kernel's maps and programs identify a socket."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")


class SocketMap(ReferenceMap):
    """A map of sockets: writing takes objects or descriptors, reading gives a `SocketCookie`.

    The kernel gives cookies only if the value has 8 bytes: declare ``__type(value, __u64)``. A closed socket
    leaves the map.
    """

    wanted = "a socket"
    kind = "socket:"
    reference = SocketCookie
    unreadable = "user space can read cookies only if the value is declared with 8 bytes (__u64)"


class SockMap(SocketMap, types=(MapType.SOCKMAP, MapType.SOCKHASH)):
    """``BPF_MAP_TYPE_SOCKMAP`` and ``BPF_MAP_TYPE_SOCKHASH``.

    Linux 4.14, commit 174a79ff9515, and 4.18, commit 81110384441a;
    https://docs.kernel.org/bpf/map_sockmap.html. It takes TCP sockets that are connected, or listen (5.7,
    commit 8ca30379a401), UDP sockets (5.7, commit edc6741cc660), and in later releases Unix and other
    sockets.
    """

    explain: ClassVar[dict[int, tuple[str, str]]] = {
        errno.EOPNOTSUPP: (
            "the map does not take sockets of this protocol, or in this state",
            "give a TCP socket that is connected or listens, or a UDP socket that is bound",
        ),
        errno.EINVAL: (
            "on this kernel the map does not take sockets of this family or protocol",
            "give a TCP socket that is connected or listens, or a UDP socket that is bound",
        ),
        errno.EBUSY: (
            "another map's program, or TLS, uses the socket already",
            "remove it from the other map first",
        ),
    }

    def delete_elem(self, key: Any) -> None:
        """Removes a socket. Raises `MapKeyError` for an empty slot."""
        result = lib.bpf_map_delete_elem(self.fd, ffi.from_buffer(self._encode_key(key)))
        if result == -errno.EINVAL:  # an array of sockets gives this error for an empty slot
            self._refuse(errno.ENOENT, "delete", key)
        if result < 0:
            self._refuse(-result, "delete", key)


class ReuseportMap(SocketMap, types=(MapType.REUSEPORT_SOCKARRAY,)):
    """``BPF_MAP_TYPE_REUSEPORT_SOCKARRAY``: Linux 4.19, commit 5dc4c4b7d4e8.

    It has the sockets of a port; an ``sk_reuseport`` program chooses one of them.
    """

    explain: ClassVar[dict[int, tuple[str, str]]] = {
        errno.EINVAL: (
            "the socket has no SO_REUSEPORT, or is not bound (UDP) or listening (TCP) yet",
            "set SO_REUSEPORT before bind(), and for TCP call listen(), before you put it in",
        ),
        errno.EBUSY: ("the socket is in such a map already", "delete it there first"),
        ENOTSUPP: ("it is not a TCP or UDP socket of IPv4 or IPv6", "give such a socket"),
    }


class XskMap(ReferenceMap, types=(MapType.XSKMAP,)):
    """``BPF_MAP_TYPE_XSKMAP``: Linux 4.18, commit fbfc504a24f5. It has AF_XDP sockets by receive queue.

    https://docs.kernel.org/bpf/map_xskmap.html. User space can't read it.
    """

    wanted = "an AF_XDP socket"
    kind = "socket:"
    unreadable = "the kernel does not show user space which sockets are in it"
    explain: ClassVar[dict[int, tuple[str, str]]] = {
        errno.EOPNOTSUPP: (
            "it is not an AF_XDP socket, or it has no receive ring yet",
            "set it up with XDP_UMEM_REG, XDP_UMEM_FILL_RING and XDP_RX_RING first",
        ),
    }
