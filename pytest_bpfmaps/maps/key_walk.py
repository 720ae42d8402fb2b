"""Reading a map element by element, while programs write to it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import failure

if TYPE_CHECKING:
    from pytest_bpfmaps.maps.base import Map


class Walk:
    """Goes once through a map by ``BPF_MAP_GET_NEXT_KEY`` and collects keys with their values.

    Asked for the key after one that is gone, the kernel answers with the map's first key. So each key is
    looked up after its successor was asked for: when it is gone, the successor counts for nothing, and the
    walk goes on from the last key before it that is still there. `restarts` counts that. A writer can't hold
    the reader for ever: after `max_entries` * 4 + 1024 steps `complete` is False and the walk ends.
    """

    def __init__(self, the_map: Map) -> None:
        self._map = the_map
        self.found: dict[bytes, bytes] = {}
        self.restarts = 0
        self.complete = False
        self._path: list[bytes] = []
        self._go()

    def _go(self) -> None:
        key = self._map._next_raw_key(None)
        for _ in range(4 * self._map.max_entries + 1024):
            if key is None:
                self.complete = True
                return
            after = self._map._next_raw_key(key)
            value = self._lookup(key)
            if value is None:
                self.restarts += 1
                key = self._map._next_raw_key(self._last_still_there())
                continue
            if key not in self.found:
                self._path.append(key)
            self.found[key] = value
            key = after

    def _last_still_there(self) -> bytes | None:
        while self._path and self._lookup(self._path[-1]) is None:
            self._path.pop()
        return self._path[-1] if self._path else None

    def _lookup(self, key: bytes) -> bytes | None:
        out = bytearray(self._map._value_bytes)
        result = lib.bpf_map_lookup_elem(self._map.fd, ffi.from_buffer(key), ffi.from_buffer(out))
        if result == -errno.ENOENT:
            return None
        if result < 0:
            raise failure(-result, MapError, "cannot read", on=str(self._map))
        return bytes(out)
