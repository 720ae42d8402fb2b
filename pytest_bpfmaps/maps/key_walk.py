"""Reads a map element by element, while programs write to it."""

from __future__ import annotations

from collections.abc import Callable


class Walk:
    """Reads a map once by ``BPF_MAP_GET_NEXT_KEY``, and collects keys with their values.

    `next_key` returns the key after a key, or the first key for None. `lookup` returns the value of a key, or
    None if the key was deleted. For the key after a deleted key, the kernel returns the map's first key. So
    each key is looked up after its successor was requested. If the key was deleted, the successor is ignored,
    and the walk goes on from the last earlier key that still exists. `restarts` counts that. The walk always
    ends: after `most` steps it stops, and `complete` is False.
    """

    def __init__(
        self,
        next_key: Callable[[bytes | None], bytes | None],
        lookup: Callable[[bytes], bytes | None],
        *,
        most: int,
    ) -> None:
        self._next_key = next_key
        self._lookup = lookup
        self.found: dict[bytes, bytes] = {}
        self.restarts = 0
        self.complete = False
        self._path: list[bytes] = []
        self._go(most)

    def _go(self, most: int) -> None:
        key = self._next_key(None)
        for _ in range(most):
            if key is None:
                self.complete = True
                return
            after = self._next_key(key)
            value = self._lookup(key)
            if value is None:
                self.restarts += 1
                key = self._next_key(self._last_still_there())
                continue
            if key not in self.found:
                self._path.append(key)
            self.found[key] = value
            key = after

    def _last_still_there(self) -> bytes | None:
        while self._path and self._lookup(self._path[-1]) is None:
            self._path.pop()
        return self._path[-1] if self._path else None
