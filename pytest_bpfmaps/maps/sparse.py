"""The dict protocol for maps whose slots may be empty, and whose elements are read one by one."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from pytest_bpfmaps.btf.comparison import same
from pytest_bpfmaps.btf.listed_keys import Listed
from pytest_bpfmaps.errors import ENOTSUPP, MapError, UnsupportedError
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import failure, reason
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.dict_protocol import DictMap
from pytest_bpfmaps.maps.equal_keys import ADVICE, alike, describe
from pytest_bpfmaps.maps.info import INDEXED
from pytest_bpfmaps.maps.snapshot import Snapshot

# The kernel's errors if user space can't read a slot.
_UNREADABLE = frozenset({errno.EOPNOTSUPP, errno.ENOSPC, ENOTSUPP})


class SparseMap(DictMap):
    """A dict of what the map holds now, without an array's empty slots.

    Iteration and views work on the elements that were there when they started.
    """

    unreadable = "the kernel does not let user space read its elements"

    def __contains__(self, key: Any) -> bool:
        return self._find(self._encode_key(key)) is not None

    def lookup_elem(self, key: Any, flags: int = 0) -> Any:
        """Returns the value of `key`. Raises `MapKeyError` for an empty slot."""
        raw = self._encode_key(key)
        found = self._find(raw, flags)
        if found is None:
            self._refuse(errno.ENOENT, "look up", key)
        return self._decode_value(found)

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the value of `key`, or `default` if it is missing."""
        found = self._find(self._encode_key(key))
        return default if found is None else self._decode_value(found)

    def snapshot(self) -> Snapshot:
        """Returns the elements as a new `dict`."""
        found = list(self._raw_items())
        values = [self._decode_value(v) for _, v in found]
        return Snapshot.of(b"".join(k for k, _ in found), values, str(self), self._key)

    def clear(self) -> None:
        """Empties all slots."""
        for key in self._raw_keys():
            result = lib.bpf_map_delete_elem(self.fd, ffi.from_buffer(key))
            # for an empty slot, arrays of sockets and programs give EINVAL (sockmap) or ENOENT
            if result < 0 and -result not in (errno.ENOENT, errno.EINVAL):
                self._refuse(-result, "delete", self._key.listed(key))

    def __eq__(self, other: object) -> bool:
        """Returns whether the map holds the same elements as a mapping now, or whether it is the same map."""
        if isinstance(other, Map):
            return Map.__eq__(self, other)
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._holds(other, exactly=True)

    def __ge__(self, other: object) -> bool:
        """Returns whether the map holds all elements of the mapping `other` now."""
        if isinstance(other, Map) or not isinstance(other, Mapping):
            return NotImplemented
        return self._holds(other, exactly=False)

    __hash__ = Map.__hash__

    compared: Snapshot | None = None
    """The elements at the last failed comparison: the map may have changed by the time of the report."""

    def _holds(self, other: Mapping[Any, Any], *, exactly: bool) -> bool:
        seen = self.snapshot()
        wanted = {self._canonical(k): v for k, v in other.items()}
        elements = dict(seen)
        same = {k: v for k, v in wanted.items() if k in elements and self._same(elements[k], v)}
        fits = len(same) == len(wanted) == len(other) and (not exactly or len(seen) == len(wanted))
        fits = fits and not seen.alike_besides(wanted)
        if not fits:
            seen.update(same)  # uses the wanted objects, so that a report does not show them as different
        self.compared = None if fits else seen
        return fits

    def _canonical(self, key: Any) -> Any:
        """Returns a key as iteration gives it, for any form that the map takes; any other key unchanged."""
        if isinstance(key, Listed):
            return key
        try:
            return self._key.listed(self._encode_key(key))
        except (KeyError, TypeError, ValueError):
            return key

    def _same(self, mine: Any, wanted: Any) -> bool:
        return same(self._value, mine, wanted)

    def _find(self, key: bytes, flags: int = 0) -> bytearray | None:
        """Returns the raw value, None for an empty slot.

        Raises `UnsupportedError` if user space can't read the map.
        """
        out = bytearray(self._value_bytes)
        result = lib.bpf_map_lookup_elem_flags(self.fd, ffi.from_buffer(key), ffi.from_buffer(out), flags)
        if result == -errno.ENOENT:
            return None
        if -result in _UNREADABLE:
            raise UnsupportedError(
                "cannot read", on=str(self), why=f"{self.unreadable} ({reason(-result)})", errno=-result
            )
        if result < 0:
            self._refuse(-result, "look up", self._key.listed(key), flags)
        return out

    def _raw_items(self) -> Iterator[tuple[bytes, bytearray]]:
        for key in self._raw_keys():
            value = self._find(key)
            if value is not None:
                yield key, value

    def _raw_keys(self) -> list[bytes]:
        """Returns the keys that ``BPF_MAP_GET_NEXT_KEY`` lists; for an array all indices, empty or not.

        If a key comes twice, the kernel has started again, because a key was deleted meanwhile.
        """
        seen: dict[bytes, None] = {}
        key: bytes | None = None
        again = 0
        while again <= len(seen) + 8:
            out = bytearray(self.key_size)
            before = ffi.NULL if key is None else ffi.from_buffer(key)
            result = lib.bpf_map_get_next_key(self.fd, before, ffi.from_buffer(out))
            if result == -errno.ENOENT:
                break
            if result < 0:
                raise failure(-result, MapError, "cannot list the keys of", on=str(self))
            key = bytes(out)
            again += key in seen
            seen[key] = None
        return list(seen)

    def _refuse(self, number: int, verb: str, key: Any, flags: int = 0) -> NoReturn:
        if number != errno.E2BIG or self._info.type not in INDEXED:
            super()._refuse(number, verb, key, flags)
        raise MapError(
            f"cannot {verb} {key!r}",
            on=f"in {self}",
            why=f"its indices go from 0 to {self.max_entries - 1} (E2BIG)",
            fix="give an index in that range",
            errno=number,
        )

    def _explain_missing(self, key: Any) -> tuple[str | None, str | None]:
        try:
            raws = [raw for raw, _ in self._raw_items()]
        except UnsupportedError:
            return None, None
        if not raws:
            return None, "nothing was put into the map"
        with suppress(MapError):  # the key may be of another kind, for example a cgroup
            asked = super()._encode_key(key)
            twins = alike(self._key, raws, asked)
            if twins:
                return describe(twins, asked), ADVICE
        keys = [repr(self._key.listed(raw)) for raw in raws]
        return None, "its keys: " + ", ".join(keys[:5]) + (", …" if len(keys) > 5 else "")
