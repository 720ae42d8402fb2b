"""Fields that hold addresses of the Internet: they take `ipaddress` objects, and are compared with them."""

from __future__ import annotations

import sys
from typing import Any

from pytest_bpfmaps.btf.codec import Codec, IntCodec, wrong_type
from pytest_bpfmaps.errors import MapValueError

NETWORK_ORDER = frozenset({"__be32", "be32", "in_addr_t"})
"""Types of numbers that C programs keep in network byte order."""
_STRUCTS = frozenset({"struct in_addr", "struct in6_addr"})


class AddressCodec(IntCodec):
    """``__be32``: `int`, as the kernel has it. Takes an IPv4 address, which is in network byte order."""

    network_order = True

    def to_int(self, value: Any, where: str) -> int:
        if isinstance(value, str):
            raise wrong_type(value, self, where, "an int or an address: ipaddress.ip_address('10.0.0.1')")
        packed = packed_address(self, value, where)
        return super().to_int(value if packed is None else int.from_bytes(packed, sys.byteorder), where)


def is_address(codec: Codec) -> bool:
    """Whether a struct is an address of the Internet."""
    return codec.name in _STRUCTS


def packed_address(codec: Codec, value: Any, where: str) -> bytes | None:
    """The bytes of an address; None for any other value.

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
