"""Queues and stacks: values without keys."""

from __future__ import annotations

import errno
from typing import Any, NoReturn

from pytest_bpfmaps.errors import MapEmptyError, MapError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.map_flags import BPF_ANY
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.flags import flags_of


class QueueMap(Map, types=(MapType.QUEUE, MapType.STACK)):
    """``BPF_MAP_TYPE_QUEUE`` (first in, first out) and ``BPF_MAP_TYPE_STACK`` (last in, first out).

    Linux 4.20, commit f1a2e44a3aec; https://docs.kernel.org/bpf/map_queue_stack.html. The kernel does not say
    how many values there are, so there is no ``len()``. As a condition the map is true if it has a value.
    """

    def push(self, value: Any, flags: int = BPF_ANY) -> None:
        """Adds a value; with `BPF_EXIST` in `flags`, a full map drops its oldest value.

        Raises `MapError` (`E2BIG`) if the map is full.
        """
        raw = self._encode_value(value)
        result = lib.bpf_map_update_elem(self.fd, ffi.NULL, ffi.from_buffer(raw), flags_of(flags))
        if result == -errno.E2BIG:
            raise MapError(
                f"cannot push {value!r}",
                on=f"onto {self}",
                why=f"it is full: max_entries is {self.max_entries} (E2BIG)",
                fix="pop first, or push(value, BPF_EXIST) to drop the oldest value",
                errno=errno.E2BIG,
            )
        if result < 0:
            self._fail(-result, f"cannot push {value!r}")

    def pop(self) -> Any:
        """Removes and returns the next value. Raises `MapEmptyError` (a `KeyError` and an `IndexError`)."""
        return self._take(lib.bpf_map_lookup_and_delete_elem, "cannot pop")

    def peek(self) -> Any:
        """Returns the next value, which stays. Raises `MapEmptyError` (a `KeyError` and an `IndexError`)."""
        return self._take(lib.bpf_map_lookup_elem, "cannot peek")

    def drain(self) -> list[Any]:
        """Removes and returns all values, in the order of `pop`."""
        taken: list[Any] = []
        try:
            while True:
                taken.append(self.pop())
        except MapEmptyError:
            return taken

    def clear(self) -> None:
        """Removes all values."""
        self.drain()

    def __bool__(self) -> bool:
        try:
            self.peek()
        except MapEmptyError:
            return False
        return True

    def __repr__(self) -> str:
        return f"<map {self.name!r} ({self.type}) of {self._value.name}>"

    def _take(self, call: Any, what: str) -> Any:
        out = bytearray(self._value_bytes)
        result = call(self.fd, ffi.NULL, ffi.from_buffer(out))
        if result == -errno.ENOENT:
            raise MapEmptyError(what, on=f"from {self}", why="it is empty", errno=errno.ENOENT)
        if result < 0:
            self._fail(-result, what)
        return self._decode_value(out)

    def _fail(self, number: int, what: str) -> NoReturn:
        fix = "run with CAP_BPF; the map may also be frozen" if number == errno.EPERM else None
        raise MapError(what, on=f"of {self}", why=reason(number), fix=fix, errno=number)
