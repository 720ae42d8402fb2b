"""Bloom filters: sets whose "no" is certain, and whose "yes" is only likely."""

from __future__ import annotations

import errno
from typing import Any

from pytest_bpfmaps.errors import MapError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.map_flags import BPF_ANY
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.base import Map


class BloomFilterMap(Map, types=(MapType.BLOOM_FILTER,)):
    """``BPF_MAP_TYPE_BLOOM_FILTER``: Linux 5.16, commit 9330986c0300.

    https://docs.kernel.org/bpf/map_bloom_filter.html. Values can't be removed or listed. `max_entries` is the
    expected number of values, not a limit.
    """

    def push(self, value: Any) -> None:
        """Adds a value."""
        self._call(lib.bpf_map_update_elem, "push", value, BPF_ANY)

    add = push

    def __contains__(self, value: Any) -> bool:
        """Returns whether the value was pushed: False is certain, True is likely."""
        return self._call(lib.bpf_map_lookup_elem, "look up", value)

    def __repr__(self) -> str:
        return f"<map {self.name!r} ({self.type}) of {self._value.name}>"

    def _call(self, call: Any, verb: str, value: Any, *flags: int) -> bool:
        raw = self._encode_value(value)
        result = call(self.fd, ffi.NULL, ffi.from_buffer(bytearray(raw)), *flags)
        if result < 0 and result != -errno.ENOENT:
            raise MapError(f"cannot {verb} {value!r}", on=f"in {self}", why=reason(-result), errno=-result)
        return bool(result == 0)
