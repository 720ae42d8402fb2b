"""Longest prefix match: the keys are networks."""

from __future__ import annotations

import errno
import ipaddress
import struct
from typing import Any, NoReturn

from pytest_bpfmaps.btf import Codec, Codecs
from pytest_bpfmaps.btf.codec import Buffer, wrong_type
from pytest_bpfmaps.btf.record import StructCodec
from pytest_bpfmaps.errors import MapError, MapValueError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.maps.element_errors import how_to_enlarge
from pytest_bpfmaps.maps.families.hash import HashMap
from pytest_bpfmaps.maps.info import MapInfo

_LENGTH = struct.Struct("=I")
_NETWORKS = {4: ipaddress.IPv4Network, 16: ipaddress.IPv6Network}
_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address)


class LpmTrieMap(HashMap, types=(MapType.LPM_TRIE,)):
    """``BPF_MAP_TYPE_LPM_TRIE``: Linux 4.11, commit b95a5c4db09b (listing keys: 4.16, commit b471f2f1de8b).

    https://docs.kernel.org/bpf/map_lpm_trie.html. Keys are `ipaddress` networks, addresses (which mean their
    longest prefix), both also as text, or ``(prefixlen, bytes)``, with the prefix length in bits. A lookup
    finds the longest prefix that covers the key, so ``key in m`` asks for a match. Deletion and iteration use
    exact prefixes.
    """

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        super().__init__(fd, info, codecs, **options)
        self._key: Codec = PrefixCodec(self._key)

    def _refuse(self, number: int, verb: str, key: Any, flags: int = 0) -> NoReturn:
        if number != errno.ENOSPC:
            super()._refuse(number, verb, key, flags)
        raise MapError(
            f"cannot {verb} {key!r}",
            on=f"in {self}",
            why=f"the map is full: max_entries is {self.max_entries} (ENOSPC)",
            fix=how_to_enlarge(self.name),
            errno=number,
        )


class PrefixCodec(Codec):
    """``struct { __u32 prefixlen; … data; }``: a network if `data` is an address of 4 or 16 bytes.

    Otherwise a key is ``(prefixlen, bytes)``, or the struct's own record if `data` has several fields, or is
    smaller than the bytes that the kernel compares: then it is no address, but a port, for example. Writing
    takes each of these forms, and addresses.
    """

    def __init__(self, declared: Codec) -> None:
        self.name = declared.name
        self.size = declared.size
        self._declared = declared
        self._data_size = declared.size - _LENGTH.size
        self._is_record = isinstance(declared, StructCodec) and not self._is_pair(declared)
        self._network = None if self._is_record else _NETWORKS.get(self._data_size)

    def _is_pair(self, declared: StructCodec) -> bool:
        """Whether all data after the prefix length is one field, or a union of fields."""
        data = [f for f in declared.fields if f.offset]
        return {f.offset for f in data} == {_LENGTH.size} and any(
            f.codec.size == self._data_size for f in data
        )

    def decode(self, data: Buffer, offset: int = 0) -> Any:
        if self._is_record:
            return self._declared.decode(self._prefix(data, offset))
        (length,) = _LENGTH.unpack_from(data, offset)
        raw = self._prefix(data, offset)[_LENGTH.size :]
        return self._network((raw, length)) if self._network else (length, raw)

    def clean(self, raw: bytes) -> bytes:
        prefix = self._prefix(raw)
        return self._declared.clean(prefix) if self._is_record else prefix

    def listed(self, raw: bytes) -> Any:
        return self._declared.listed(self._prefix(raw)) if self._is_record else self.decode(raw)

    def _prefix(self, data: Buffer, offset: int = 0) -> bytes:
        """Returns the bytes of a key, with zeros after the prefix: the kernel does not look at the rest."""
        (length,) = _LENGTH.unpack_from(data, offset)
        start = offset + _LENGTH.size
        rest = _masked(bytes(data[start : offset + self.size]), length)
        return bytes(data[offset:start]) + rest

    def encode_into(self, out: bytearray, offset: int, value: Any, where: str) -> None:
        pair = self._as_pair(value, where)
        start = offset + _LENGTH.size
        if pair is None:
            if not isinstance(self._declared, StructCodec):
                raise wrong_type(value, self, where, "an ipaddress network or (prefixlen, bytes)")
            self._declared.encode_into(out, offset, value, where)
            pair = _LENGTH.unpack_from(out, offset)[0], bytes(out[start : offset + self.size])
        length, data = pair
        if not 0 <= length <= self._data_size * 8:
            raise self._refusal(value, where, f"a prefix has 0 to {self._data_size * 8} bits here")
        _LENGTH.pack_into(out, offset, length)
        out[start : offset + self.size] = _masked(data.ljust(self._data_size, b"\0"), length)

    def _as_pair(self, value: Any, where: str) -> tuple[int, bytes] | None:
        """Returns the prefix length in bits and the data; None if only the struct's codec can encode it."""
        if isinstance(value, str):
            value = self._parsed(value, where)
        if isinstance(value, ipaddress.IPv4Interface | ipaddress.IPv6Interface):
            value = value.network
        if isinstance(value, _ADDRESSES):
            return self._checked(value, value.max_prefixlen, value.packed, where)
        if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
            return self._checked(value, value.prefixlen, value.network_address.packed, where)
        match value:
            case (int(length), bytes() | bytearray() | memoryview() as data) if len(data) <= self._data_size:
                return length, bytes(data)
            case (int(), bytes() | bytearray() | memoryview() as data):
                raise self._refusal(value, where, f"its data has {len(data)} bytes, not {self._data_size}")
            case (int(length), ipaddress.IPv4Address() | ipaddress.IPv6Address() as address):
                return self._checked(value, length, address.packed, where)
        return None

    def _parsed(self, text: str, where: str) -> Any:
        try:
            return ipaddress.ip_interface(text)
        except ValueError as e:
            raise self._refusal(text, where, str(e)) from None

    def _checked(self, value: Any, length: int, data: bytes, where: str) -> tuple[int, bytes]:
        if len(data) == self._data_size:
            return length, data
        raise self._refusal(
            value, where, f"such an address has {len(data)} bytes, but the key's data has {self._data_size}"
        )

    def _refusal(self, value: Any, where: str, why: str) -> MapValueError:
        kind = {4: "an IPv4 network or ", 16: "an IPv6 network or "}.get(self._data_size, "")
        return MapValueError(
            f"cannot store {value!r}",
            on=f"in {where} ({self.name})",
            why=why,
            fix=f"give {kind}(prefixlen in bits, {self._data_size} bytes)",
        )


def _masked(data: bytes, length: int) -> bytes:
    """Returns `data` with zeros after its first `length` bits, which do not belong to the prefix."""
    rest = max(len(data) * 8 - length, 0)
    return (int.from_bytes(data, "big") >> rest << rest).to_bytes(len(data), "big")
