"""The methods that maps share with a `dict`, on top of the kernel's operations."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.snapshot import Snapshot

Items = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
_RAISE = object()


class KeyedMap(Map):
    """A map whose elements are found by key."""

    def __getitem__(self, key: Any) -> Any:
        return self.lookup_elem(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.update_elem(key, value)

    def __delitem__(self, key: Any) -> None:
        self.delete_elem(key)

    def __contains__(self, key: Any) -> bool:
        try:
            self.lookup_elem(key)
        except KeyError:
            return False
        return True

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the value of `key`, or `default` if it is missing."""
        try:
            return self.lookup_elem(key)
        except KeyError:
            return default

    def pop(self, key: Any, default: Any = _RAISE) -> Any:
        """Removes `key`, and returns its value; if it is missing, returns `default` if that is given."""
        try:
            return self._take(key)
        except KeyError:
            if default is _RAISE:
                raise
            return default

    def _take(self, key: Any) -> Any:
        value = self.lookup_elem(key)
        self.delete_elem(key)
        return value

    def update(self, items: Items) -> None:
        """Writes the elements of a mapping, or of pairs."""
        for key, value in items.items() if isinstance(items, Mapping) else items:
            self.update_elem(key, value)


class DictMap(KeyedMap):
    """A map whose elements can be listed, too.

    Iteration and views work on the elements that were there when they started.
    """

    def __iter__(self) -> Iterator[Any]:
        return iter(self.snapshot())

    def __len__(self) -> int:
        return len(self.snapshot())

    def keys(self) -> KeysView[Any]:
        """Returns the keys as they are now; this is a snapshot, not a live view."""
        return self.snapshot().keys()

    def values(self) -> ValuesView[Any]:
        """Returns the values as they are now."""
        return self.snapshot().values()

    def items(self) -> ItemsView[Any, Any]:
        """Returns the elements as they are now."""
        return self.snapshot().items()

    def snapshot(self) -> Snapshot:
        """Returns the elements as a new `dict`, which later changes of the map don't affect."""
        raise NotImplementedError
