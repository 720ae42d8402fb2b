"""The keys and elements of a snapshot; ``in`` takes a key in any form that the map takes."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Set
from types import MappingProxyType
from typing import Any

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.comparison import same

HasOnly = Callable[[Iterable[Any]], bool]
"""Whether keys in any form mean all elements, each a different one."""


class Keys(KeysView[Any]):
    """The keys, as of `dict.keys`; ``in`` also finds a key by the name of its enumerator."""

    def __init__(self, mapping: dict[Any, Any], has_only: HasOnly) -> None:
        super().__init__(mapping)
        self.__mapping = mapping
        self.__has_only = has_only

    def __eq__(self, other: object) -> bool:
        """Returns whether a set has the same keys.

        This view looks them up, because a set does not find names.
        """
        if not isinstance(other, Set):
            return NotImplemented
        return self.__has_only(other) and all(key in self for key in other)

    def __contains__(self, key: object) -> bool:
        return key in self.__mapping

    def __iter__(self) -> Iterator[Any]:
        return dict.__iter__(self.__mapping)

    @property
    def mapping(self) -> MappingProxyType[Any, Any]:
        """The mapping of the view, as for views of a `dict`."""
        return MappingProxyType(self.__mapping)

    def __reversed__(self) -> Iterator[Any]:
        return dict.__reversed__(self.__mapping)


class Items(ItemsView[Any, Any]):
    """The elements, as of `dict.items`; `value` is the type by which values are compared."""

    def __init__(self, mapping: dict[Any, Any], value: Codec | None) -> None:
        super().__init__(mapping)
        self.__mapping = mapping
        self.__value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Set):
            return NotImplemented
        theirs = dict(item for item in other if isinstance(item, tuple) and len(item) == 2)
        return len(theirs) == len(other) and bool(self.__mapping == theirs)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        try:
            found = self.__mapping[item[0]]
        except KeyError:
            return False
        return found is item[1] or same(self.__value, found, item[1])

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(dict.items(self.__mapping))

    @property
    def mapping(self) -> MappingProxyType[Any, Any]:
        """The mapping of the view, as for views of a `dict`."""
        return MappingProxyType(self.__mapping)

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return reversed(dict.items(self.__mapping))
