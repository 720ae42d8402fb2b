"""Fields that hold IP addresses. They take `ipaddress` objects, and can be compared with them."""

from __future__ import annotations

import sys
from typing import Any

from pytest_bpfmaps.btf.codec import Codec, IntCodec, wrong_type
from pytest_bpfmaps.errors import MapValueError

NETWORK_ORDER = frozenset({"__be32", "be32", "in_addr_t"})
"""The number types that C programs keep in network byte order."""
_STRUCTS = frozenset({"struct in_addr", "struct in6_addr"})


class AddressCodec(IntCodec):
    """``__be32``. The value is an `int` of the kernel's bytes. Stores an IPv4 address in network order."""

    network_order = True

    def to_int(self, value: Any, where: str) -> int:
        if isinstance(value, str):
            raise wrong_type(value, self, where, "an int or an address: ipaddress.ip_address('10.0.0.1')")
        packed = packed_address(self, value, where)
        return super().to_int(value if packed is None else int.from_bytes(packed, sys.byteorder), where)


def is_address(codec: Codec) -> bool:
    """Returns whether a struct is an IP address."""
    return codec.name in _STRUCTS


def packed_address(codec: Codec, value: Any, where: str) -> bytes | None:
    """Returns the bytes of an IP address, and None for any other value.

    Raises `MapValueError` for an address of the other length.
    """
    packed = getattr(value, "packed", None)
    if not isinstance(packed, bytes):
        return None
    if len(packed) != codec.size:
        raise MapValueError(
            f"cannot store {value!r}",
            on=f"in {where} ({codec.name})",
            why=f"it has {len(packed)} bytes, not {codec.size}",
            fix=f"give an IPv{6 if codec.size == 16 else 4} address",
        )
    return packed
